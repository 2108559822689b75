-- Where a stream stands; no row if it does not exist.
-- $1 aggregate_type, $2 aggregate_id, $3 start of the oldest month that is not rolled up (an older one does no harm)
SELECT greatest(open.version, s.version) AS version,
       s.first_occurred_at,
       CASE WHEN open.version >= s.version THEN open.occurred_at ELSE s.last_occurred_at END AS last_occurred_at
  FROM streams s
  LEFT JOIN LATERAL (
       SELECT e.version, e.occurred_at
         FROM events e
        WHERE e.aggregate_type = $1
          AND e.aggregate_id = $2
          AND e.occurred_at >= $3
        ORDER BY e.version DESC
        LIMIT 1) AS open
    ON true
 WHERE s.aggregate_type = $1
   AND s.aggregate_id = $2
