-- The events in a part of the log that match a filter, in order, found by reading all of its events.
-- $1 after this position, $2 up to this position, $3 and $4 earliest and latest occurred_at,
-- $5 the largest number of rows,
-- $6 aggregate_types and $7 prefixes of aggregate types: an event must match one of them; $6 is NULL for any,
-- $8 event_types: NULL for any,
-- $9 the number of a partition of the streams, NULL for any, and $10 the number of all partitions
-- catalogue_changes is that of log_head.sql, in the snapshot of the events.
SELECT e.event_id, e.aggregate_type, e.aggregate_id, e.version, e.global_position, e.event_type,
       e.event_data, e.metadata, e.occurred_at, e.correlation_id, e.causation_id,
       (SELECT coalesce(sum(p.archive_changes), 0) + count(p.sealed_at) FROM partitions p) AS catalogue_changes
  FROM events e
 WHERE e.global_position > $1
   AND e.global_position <= $2
   AND e.occurred_at >= $3
   AND e.occurred_at <= $4
   AND ($6::text[] IS NULL
        OR e.aggregate_type = ANY ($6)
        OR EXISTS (
           SELECT
             FROM unnest($7::text[]) AS p (prefix)
            WHERE starts_with(e.aggregate_type, p.prefix)))
   AND ($8::text[] IS NULL OR e.event_type = ANY ($8))
   AND ($9::integer IS NULL OR stream_bucket(e.aggregate_type, e.aggregate_id) % $10::integer = $9)
 ORDER BY e.global_position
 LIMIT $5
