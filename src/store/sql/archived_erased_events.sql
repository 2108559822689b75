-- The erased events of archived partitions whose files may still have the content. An event may have several rows.
SELECT d.global_position, d.members
  FROM erasure_months m
  JOIN partitions p
    ON p.starts_at = m.starts_at
   AND p.archived_at IS NOT NULL
  JOIN erased_events d
    ON d.erasure = m.erasure
   AND d.occurred_at >= p.starts_at
   AND d.occurred_at < p.ends_at
 WHERE m.removed_at IS NULL
