-- The time of an event of a stream.
-- $1 aggregate_type, $2 aggregate_id, $3 version, $4 and $5 times of the stream's first and last event
SELECT occurred_at
  FROM events
 WHERE aggregate_type = $1
   AND aggregate_id = $2
   AND version = $3
   AND occurred_at >= $4
   AND occurred_at <= $5
