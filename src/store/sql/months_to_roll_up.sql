-- The months that are over and not rolled up, oldest first. A month is over when a later event exists: times never go
-- backwards along the log, so nothing can be added to it any more. $1 occurred_at of the last event
SELECT starts_at, ends_at
  FROM partitions
 WHERE rolled_up_at IS NULL
   AND ends_at <= $1
 ORDER BY starts_at
