-- The version that a stream had at a time; no row if it had no event yet.
-- $1 aggregate_type, $2 aggregate_id, $3 the time, $4 earliest occurred_at of the stream
SELECT version
  FROM events
 WHERE aggregate_type = $1
   AND aggregate_id = $2
   AND occurred_at >= $4
   AND occurred_at <= $3
 ORDER BY version DESC
 LIMIT 1
