-- The streams of a type with their heads, in the byte order of their ids.
-- $1 aggregate_type, $2 after this aggregate_id, $3 the largest number of streams,
-- $4 start of the oldest partition that is not sealed (an older time is harmless),
-- $5 and $6 the first aggregate_id and the end of the ids, which is excluded
SELECT s.aggregate_id, h.version, h.first_occurred_at, h.last_occurred_at
  FROM (
       SELECT aggregate_type, aggregate_id
         FROM streams
        WHERE aggregate_type = $1
          AND aggregate_id > $2
          AND aggregate_id >= $5
          AND aggregate_id < $6
        ORDER BY aggregate_id
        LIMIT $3) AS s
 CROSS JOIN LATERAL stream_head(s.aggregate_type, s.aggregate_id, $4) AS h
 ORDER BY s.aggregate_id
