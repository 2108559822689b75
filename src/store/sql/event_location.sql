-- The position and the time of an event, archived or not. $1 event_id
SELECT global_position, occurred_at
  FROM event_ids
 WHERE event_id = $1
