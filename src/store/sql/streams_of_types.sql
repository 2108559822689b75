-- A walk along the streams of a range of types, in the byte order of types and ids. Each step is one probe of the index
-- for the next stream of the type, and one for the next type. The rows are the steps: a stream with its head, or a type
-- that begins, with what the walk has examined of it. The first row is where the walk begins; no row if the range has
-- no stream.
-- $1 the first aggregate_type and $2 the end of the types, which is excluded,
-- $3 after this aggregate_id of the type $1,
-- $4 the first aggregate_id and $5 the end of the ids, which is excluded: an id must be between them,
-- $6 the largest number of streams, $7 the largest number of types,
-- $8 start of the oldest partition that is not sealed (an older time is harmless)
WITH RECURSIVE walk (aggregate_type, aggregate_id, is_stream, streams, types) AS (
    (
    SELECT s.aggregate_type::text COLLATE "C",
           CASE WHEN s.aggregate_type = $1 THEN $3::text ELSE '' END COLLATE "C",
           false,
           0::bigint,
           1::bigint
      FROM streams s
     WHERE s.aggregate_type >= $1
       AND s.aggregate_type < $2
     ORDER BY s.aggregate_type
     LIMIT 1)
    UNION ALL
    SELECT step.aggregate_type,
           step.aggregate_id,
           step.is_stream,
           w.streams + step.is_stream::integer,
           w.types + (NOT step.is_stream)::integer
      FROM walk w
     CROSS JOIN LATERAL (
           (
           SELECT s.aggregate_type::text COLLATE "C" AS aggregate_type,
                  s.aggregate_id::text COLLATE "C" AS aggregate_id,
                  true AS is_stream
             FROM streams s
            WHERE s.aggregate_type = w.aggregate_type
              AND s.aggregate_id > w.aggregate_id
              AND s.aggregate_id >= $4
              AND s.aggregate_id < $5
            ORDER BY s.aggregate_id
            LIMIT 1)
           UNION ALL
           (
           SELECT s.aggregate_type::text COLLATE "C", '', false
             FROM streams s
            WHERE s.aggregate_type > w.aggregate_type
              AND s.aggregate_type < $2
            ORDER BY s.aggregate_type
            LIMIT 1)
            ORDER BY is_stream DESC
            LIMIT 1) AS step
     WHERE w.streams < $6
       AND (step.is_stream OR w.types < $7)
)
SELECT w.aggregate_type, w.aggregate_id, w.is_stream, h.version, h.first_occurred_at, h.last_occurred_at
  FROM walk w
  LEFT JOIN LATERAL stream_head(w.aggregate_type, w.aggregate_id, $8) AS h
    ON w.is_stream
 ORDER BY w.aggregate_type, w.aggregate_id, w.is_stream
