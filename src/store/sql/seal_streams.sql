-- Writes the last version of the next streams of a partition into streams. Returns the last stream; no row at the end.
-- $1 and $2 bounds of the partition, $3 and $4 the last stream that is done, $5 the number of streams
-- Locks: the rows of streams, in the order of their key; no other statement updates them.
WITH heads AS (
    SELECT aggregate_type, aggregate_id, max(version) AS version, max(occurred_at) AS occurred_at
      FROM events
     WHERE occurred_at >= $1
       AND occurred_at < $2
       AND (aggregate_type, aggregate_id) > ($3, $4)
     GROUP BY aggregate_type, aggregate_id
     ORDER BY aggregate_type, aggregate_id
     LIMIT $5
), written AS (
    UPDATE streams s
       SET version = h.version,
           last_occurred_at = h.occurred_at
      FROM heads h
     WHERE s.aggregate_type = h.aggregate_type
       AND s.aggregate_id = h.aggregate_id
       -- A slower session may still seal an older partition: the version of a newer one must remain.
       AND s.version < h.version
)
SELECT aggregate_type, aggregate_id
  FROM heads
 ORDER BY aggregate_type DESC, aggregate_id DESC
 LIMIT 1
