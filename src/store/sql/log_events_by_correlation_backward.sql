-- The events in a part of the log that match a filter, the newest first, found through their correlation id.
-- $1 after this position, $2 up to this position, $3 and $4 earliest and latest occurred_at,
-- $5 the largest number of rows,
-- $6 aggregate_types, $7 aggregate_ids, $8 event_types, $9 correlation_ids: each without duplicates, NULL for any,
-- $10 the number of a partition of the streams, NULL for any, and $11 the number of all partitions
-- catalogue_changes is that of log_head.sql, in the snapshot of the events.
SELECT found.event_id, found.aggregate_type, found.aggregate_id, found.version, found.global_position,
       found.event_type, found.event_data, found.metadata, found.occurred_at, found.correlation_id,
       found.causation_id,
       (SELECT coalesce(sum(p.archive_changes), 0) + count(p.sealed_at) FROM partitions p) AS catalogue_changes
  FROM unnest($9::uuid[]) AS wanted (correlation_id)
 CROSS JOIN LATERAL (
       SELECT e.event_id, e.aggregate_type, e.aggregate_id, e.version, e.global_position, e.event_type,
              e.event_data, e.metadata, e.occurred_at, e.correlation_id, e.causation_id
         FROM events e
        WHERE e.correlation_id = wanted.correlation_id
          AND e.global_position > $1
          AND e.global_position <= $2
          AND e.occurred_at >= $3
          AND e.occurred_at <= $4
          AND ($6::text[] IS NULL OR e.aggregate_type = ANY ($6))
          AND ($7::text[] IS NULL OR e.aggregate_id = ANY ($7))
          AND ($8::text[] IS NULL OR e.event_type = ANY ($8))
          AND ($10::integer IS NULL OR stream_bucket(e.aggregate_type, e.aggregate_id) % $11::integer = $10)
        ORDER BY e.global_position DESC
        LIMIT $5) AS found
 ORDER BY found.global_position DESC
 LIMIT $5
