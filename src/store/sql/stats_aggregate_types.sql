-- Aggregate types in byte order of their names: the number of events, streams and snapshots of each; and, as JSON, the
-- number of streams of at least a size, and the number of events of each event type.
SELECT s.as_of_position,
       t.aggregate_type,
       t.events,
       t.last_occurred_at,
       t.event_types::text AS event_types,
       sizes.streams,
       sizes.by_size::text AS by_size,
       (coalesce((SELECT c.snapshots FROM snapshot_counts c WHERE c.aggregate_type = t.aggregate_type), 0)
        + coalesce((SELECT sum(c.change) FROM snapshot_changes c WHERE c.aggregate_type = t.aggregate_type), 0))::bigint
           AS snapshots
  FROM statistics s
  LEFT JOIN (
       SELECT c.aggregate_type,
              sum(c.events)::bigint AS events,
              max(c.last_occurred_at) AS last_occurred_at,
              json_agg(json_build_object('event_type', c.event_type, 'events', c.events) ORDER BY c.event_type)
                  AS event_types
         FROM event_counts c
        GROUP BY c.aggregate_type) AS t
    ON true
  LEFT JOIN LATERAL (
       SELECT max(c.streams) FILTER (WHERE c.at_least = 1) AS streams,
              json_agg(json_build_object('at_least', c.at_least, 'streams', c.streams) ORDER BY c.at_least) AS by_size
         FROM stream_counts c
        WHERE c.aggregate_type = t.aggregate_type) AS sizes
    ON true
 ORDER BY t.aggregate_type
