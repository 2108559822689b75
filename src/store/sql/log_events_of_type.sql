-- A part of the log, in order: the events of one aggregate type.
-- $1 after this position, $2 up to this one, $3 earliest occurred_at that may stand there, $4 at most so many,
-- $5 aggregate_type
SELECT event_id, aggregate_type, aggregate_id, version, global_position, event_type,
       event_data::text AS event_data, metadata::text AS metadata, occurred_at, correlation_id, causation_id
  FROM events
 WHERE global_position > $1
   AND global_position <= $2
   AND occurred_at >= $3
   AND aggregate_type = $5
 ORDER BY global_position
 LIMIT $4
