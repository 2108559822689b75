-- The versions of some streams, in the order of the request. $1 aggregate_types, $2 aggregate_ids, $3 start of the oldest
-- partition that is not sealed
SELECT coalesce(h.version, 0)
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS s (aggregate_type, aggregate_id, ordinal)
  LEFT JOIN LATERAL stream_head(
           p_aggregate_type => s.aggregate_type,
           p_aggregate_id => s.aggregate_id,
           p_open_from => $3) AS h
    ON true
 ORDER BY s.ordinal
