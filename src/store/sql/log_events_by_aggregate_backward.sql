-- The positions of events in a part of the log that match a filter, the newest first, found through their streams. The
-- events of each stream are in the order of the log.
-- $1 after this position, $2 up to this position, $3 and $4 earliest and latest occurred_at,
-- $5 the largest number of rows,
-- $6 aggregate_types, $7 aggregate_ids, $8 event_types, $9 correlation_ids: each without duplicates, NULL for any
SELECT found.global_position, found.occurred_at
  FROM unnest($7::text[]) AS wanted (aggregate_id)
 CROSS JOIN LATERAL (
       SELECT e.global_position, e.occurred_at
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
        ORDER BY e.version DESC
        LIMIT $5) AS found
 ORDER BY found.global_position DESC
 LIMIT $5
