-- The events in a part of the log that match a filter, the newest first, found through their streams. The
-- events of each stream are in the order of the log.
-- $1 after this position, $2 up to this position, $3 and $4 earliest and latest occurred_at,
-- $5 the largest number of rows,
-- $6 aggregate_types, $7 aggregate_ids, $8 event_types, $9 correlation_ids: each without duplicates, NULL for any,
-- $10 the number of a partition of the streams, NULL for any, and $11 the number of all partitions
-- catalogue_changes is that of log_head.sql, in the snapshot of the events.
SELECT found.event_id, found.aggregate_type, found.aggregate_id, found.version, found.global_position,
       found.event_type, found.event_data, found.metadata, found.occurred_at, found.correlation_id,
       found.causation_id,
       (SELECT coalesce(sum(p.archive_changes), 0) + count(p.sealed_at) FROM partitions p) AS catalogue_changes
  FROM unnest($7::text[]) AS wanted (aggregate_id)
 CROSS JOIN LATERAL (
       SELECT e.event_id, e.aggregate_type, e.aggregate_id, e.version, e.global_position, e.event_type,
              e.event_data, e.metadata, e.occurred_at, e.correlation_id, e.causation_id
         FROM events e
        WHERE e.aggregate_type = ($6::text[])[1]
          AND e.aggregate_id = wanted.aggregate_id
          AND e.version >= first_version_after(($6::text[])[1], wanted.aggregate_id, $1, $3, $4)
          AND e.version < first_version_after(($6::text[])[1], wanted.aggregate_id, $2, $3, $4)
          AND e.global_position > $1
          AND e.global_position <= $2
          AND e.occurred_at >= $3
          AND e.occurred_at <= $4
          AND ($8::text[] IS NULL OR e.event_type = ANY ($8))
          AND ($9::uuid[] IS NULL OR e.correlation_id = ANY ($9))
          AND ($10::integer IS NULL OR stream_bucket(e.aggregate_type, e.aggregate_id) % $11::integer = $10)
        ORDER BY e.version DESC
        LIMIT $5) AS found
 ORDER BY found.global_position DESC
 LIMIT $5
