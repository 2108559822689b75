-- A part of the log, the newest first.
-- $1 after this position, $2 up to this position, $3 and $4 earliest and latest occurred_at: they bound the partitions
-- to read, $5 the largest number of events
SELECT event_id, aggregate_type, aggregate_id, version, global_position, event_type,
       event_data, metadata, occurred_at, correlation_id, causation_id
  FROM events
 WHERE global_position > $1
   AND global_position <= $2
   AND occurred_at >= $3
   AND occurred_at <= $4
 ORDER BY global_position DESC
 LIMIT $5
