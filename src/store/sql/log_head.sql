-- The head of the log: the epoch, and the last event if one exists; always one row. catalogue_changes grows whenever a
-- partition is sealed, archived or restored: a cached catalogue is valid while the number is the same, and so is
-- last_erasure, the number of the newest erasure.
-- $1 start of the oldest partition that is not sealed (an older time is harmless)
SELECT o.epoch,
       coalesce(l.global_position, 0) AS global_position,
       l.occurred_at,
       (SELECT coalesce(sum(p.archive_changes), 0) + count(p.sealed_at) FROM partitions p) AS catalogue_changes,
       (SELECT coalesce(max(d.erasure), 0) FROM erasures d) AS last_erasure
  FROM (
       SELECT epoch
         FROM epochs
        ORDER BY epoch DESC
        LIMIT 1) AS o
  LEFT JOIN LATERAL last_event($1) AS l
    ON true
