-- A part of one stream, oldest first.
-- $1 aggregate_type, $2 aggregate_id, $3 and $4 lowest and highest version, both included,
-- $5 the largest number of events,
-- $6 and $7 times of the stream's first and last event: they bound the partitions to read
SELECT event_id, aggregate_type, aggregate_id, version, global_position, event_type,
       event_data, metadata, occurred_at, correlation_id, causation_id
  FROM events
 WHERE aggregate_type = $1
   AND aggregate_id = $2
   AND version >= $3
   AND version <= $4
   AND occurred_at >= $6
   AND occurred_at <= $7
 ORDER BY version
 LIMIT $5
