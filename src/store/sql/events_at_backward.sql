-- The events at some positions, the newest first. Each position costs one probe of the index.
-- $1 global_positions, $2 the occurred_at of each, $3 and $4 the earliest and the latest of these times: they bound the
-- partitions to read
SELECT found.event_id, found.aggregate_type, found.aggregate_id, found.version, found.global_position,
       found.event_type, found.event_data, found.metadata, found.occurred_at, found.correlation_id,
       found.causation_id
  FROM unnest($1::bigint[], $2::timestamptz[]) AS place (global_position, occurred_at)
 CROSS JOIN LATERAL (
       SELECT e.event_id, e.aggregate_type, e.aggregate_id, e.version, e.global_position, e.event_type,
              e.event_data, e.metadata, e.occurred_at, e.correlation_id, e.causation_id
         FROM events e
        WHERE e.global_position = place.global_position
          AND e.occurred_at = place.occurred_at
          AND e.occurred_at >= $3
          AND e.occurred_at <= $4
        LIMIT 1) AS found
 ORDER BY found.global_position DESC
