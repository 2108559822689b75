-- The events at some positions, in the order of the log.
-- $1 global_positions, $2 the occurred_at of each, $3 and $4 the earliest and the latest of these times: they bound the
-- partitions to read
SELECT e.event_id, e.aggregate_type, e.aggregate_id, e.version, e.global_position, e.event_type,
       e.event_data, e.metadata, e.occurred_at, e.correlation_id, e.causation_id
  FROM unnest($1::bigint[], $2::timestamptz[]) AS place (global_position, occurred_at)
  JOIN events e
    ON e.global_position = place.global_position
   AND e.occurred_at = place.occurred_at
 WHERE e.occurred_at >= $3
   AND e.occurred_at <= $4
 ORDER BY e.global_position
