-- The partitions that are over and not sealed, oldest first. A partition is over if a later event exists: times never
-- go backwards along the log, so no more events can be added to it.
-- $1 occurred_at of the last event
SELECT starts_at, ends_at
  FROM partitions
 WHERE sealed_at IS NULL
   AND ends_at <= $1
 ORDER BY starts_at
