-- The catalogue of partitions, oldest first. has_table: the table still exists. is_attached: it is a partition of
-- events. detach_pending: a detach was interrupted and must be finalised.
SELECT p.name, p.starts_at, p.ends_at, p.first_position, p.last_position, p.events,
       p.first_occurred_at, p.last_occurred_at, p.sealed_at,
       p.archived_to, p.archived_at, p.archive_sha256, p.restored_at,
       to_regclass(quote_ident(p.name)) IS NOT NULL AS has_table,
       coalesce(i.inhdetachpending, false) AS detach_pending,
       i.inhrelid IS NOT NULL AS is_attached
  FROM partitions p
  LEFT JOIN pg_inherits i
    ON i.inhrelid = to_regclass(quote_ident(p.name))
   AND i.inhparent = 'events'::regclass
 ORDER BY p.starts_at
