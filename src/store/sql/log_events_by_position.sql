-- The positions of events in a part of the log that match a filter, in order, found by reading all of its events.
-- $1 after this position, $2 up to this position, $3 and $4 earliest and latest occurred_at,
-- $5 the largest number of rows,
-- $6 aggregate_types and $7 prefixes of aggregate types: an event must match one of them,
-- $8 event_types: NULL for any
SELECT e.global_position, e.occurred_at
  FROM events e
 WHERE e.global_position > $1
   AND e.global_position <= $2
   AND e.occurred_at >= $3
   AND e.occurred_at <= $4
   AND (e.aggregate_type = ANY ($6::text[])
        OR EXISTS (
           SELECT
             FROM unnest($7::text[]) AS p (prefix)
            WHERE starts_with(e.aggregate_type, p.prefix)))
   AND ($8::text[] IS NULL OR e.event_type = ANY ($8))
 ORDER BY e.global_position
 LIMIT $5
