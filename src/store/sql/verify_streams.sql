-- Every stream with the versions that each partition in the database has of it: stream by stream in byte order,
-- partitions in the order of their versions. The partition columns are NULL if the database has no event of the stream;
-- the head columns are NULL if streams has no row for it.
-- $1 up to this position, $2 start of the oldest partition that is not sealed
WITH held AS (
    SELECT e.aggregate_type, e.aggregate_id,
           min(e.version) AS first_version,
           max(e.version) AS last_version,
           count(*) AS events,
           min(e.occurred_at) AS first_occurred_at,
           max(e.occurred_at) AS last_occurred_at,
           max(e.occurred_at) < $2 AS is_sealed
      FROM events e
     WHERE e.global_position <= $1
     GROUP BY e.aggregate_type, e.aggregate_id, e.tableoid
    -- An archived partition is verified in the archive, even if its table still exists.
    HAVING e.tableoid <> ALL (ARRAY(
               SELECT coalesce(to_regclass(quote_ident(p.name))::oid, 0)
                 FROM partitions p
                WHERE p.archived_at IS NOT NULL))
)
SELECT coalesce(h.aggregate_type, s.aggregate_type)::text AS aggregate_type,
       coalesce(h.aggregate_id, s.aggregate_id)::text AS aggregate_id,
       h.first_version, h.last_version, h.events, h.first_occurred_at, h.last_occurred_at, h.is_sealed,
       s.version AS head_version,
       s.first_occurred_at AS head_first_occurred_at,
       s.last_occurred_at AS head_last_occurred_at
  FROM held h
  FULL JOIN streams s
    ON s.aggregate_type = h.aggregate_type
   AND s.aggregate_id = h.aggregate_id
 ORDER BY coalesce(h.aggregate_type, s.aggregate_type), coalesce(h.aggregate_id, s.aggregate_id), h.first_version
