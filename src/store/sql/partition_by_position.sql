-- All events of a partition, in the order of the log. $1 and $2 bounds of the partition
SELECT event_id, aggregate_type, aggregate_id, version, global_position, event_type,
       event_data, metadata, occurred_at, correlation_id, causation_id
  FROM events
 WHERE occurred_at >= $1
   AND occurred_at < $2
 ORDER BY global_position
