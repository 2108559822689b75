-- The events of an erasure in the order of the log: their ids and erased members. $1 the erasure
SELECT event_id, members::text[]
  FROM erased_events
 WHERE erasure = $1
 ORDER BY global_position
