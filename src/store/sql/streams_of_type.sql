-- The streams of a type, in the order of their ids' bytes, with where they stand.
-- $1 aggregate_type, $2 after this aggregate_id, $3 at most so many,
-- $4 start of the oldest month that is not rolled up (an older one does no harm)
SELECT s.aggregate_id,
       greatest(open.version, s.version) AS version,
       s.first_occurred_at,
       CASE WHEN open.version >= s.version THEN open.occurred_at ELSE s.last_occurred_at END AS last_occurred_at
  FROM streams s
  LEFT JOIN LATERAL (
       SELECT e.version, e.occurred_at
         FROM events e
        WHERE e.aggregate_type = s.aggregate_type
          AND e.aggregate_id = s.aggregate_id
          AND e.occurred_at >= $4
        ORDER BY e.version DESC
        LIMIT 1) AS open
    ON true
 WHERE s.aggregate_type = $1
   AND s.aggregate_id > $2
 ORDER BY s.aggregate_id
 LIMIT $3
