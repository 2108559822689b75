-- The last event of the log, if there is one. $1 start of the oldest month that is not rolled up
SELECT global_position, occurred_at
  FROM events
 WHERE occurred_at >= $1
 ORDER BY global_position DESC
 LIMIT 1
