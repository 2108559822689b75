-- The event at a place. $1 global_position, $2 its occurred_at, which says in which month
SELECT event_id, aggregate_type, aggregate_id, version, global_position, event_type,
       event_data::text AS event_data, metadata::text AS metadata, occurred_at, correlation_id, causation_id
  FROM events
 WHERE global_position = $1
   AND occurred_at = $2
