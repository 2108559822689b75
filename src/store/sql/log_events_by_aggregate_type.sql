-- The positions of events in a part of the log that match a filter, in order, found through their aggregate type.
-- $1 after this position, $2 up to this position, $3 and $4 earliest and latest occurred_at,
-- $5 the largest number of rows,
-- $6 aggregate_types, $7 aggregate_ids, $8 event_types, $9 correlation_ids: each without duplicates, NULL for any
SELECT found.global_position, found.occurred_at
  FROM unnest($6::text[]) AS wanted (aggregate_type)
 CROSS JOIN LATERAL (
       SELECT e.global_position, e.occurred_at
         FROM events e
        WHERE e.aggregate_type = wanted.aggregate_type
          AND e.global_position > $1
          AND e.global_position <= $2
          AND e.occurred_at >= $3
          AND e.occurred_at <= $4
          AND ($7::text[] IS NULL OR e.aggregate_id = ANY ($7))
          AND ($8::text[] IS NULL OR e.event_type = ANY ($8))
          AND ($9::uuid[] IS NULL OR e.correlation_id = ANY ($9))
        ORDER BY e.global_position
        LIMIT $5) AS found
 ORDER BY found.global_position
 LIMIT $5
