-- The totals of the whole store, as counted.
SELECT s.as_of_position,
       (SELECT coalesce(sum(c.events), 0)::bigint FROM event_counts c) AS events,
       (SELECT coalesce(sum(c.streams), 0)::bigint FROM stream_counts c WHERE c.at_least = 1) AS streams,
       (SELECT count(*) FROM stream_counts c WHERE c.at_least = 1) AS aggregate_types,
       ((SELECT coalesce(sum(c.snapshots), 0) FROM snapshot_counts c)
        + (SELECT coalesce(sum(c.change), 0) FROM snapshot_changes c))::bigint AS snapshots
  FROM statistics s
