-- The number of snapshots of some streams. $1 aggregate_types, $2 aggregate_ids
SELECT count(*)
  FROM unnest($1::text[], $2::text[]) AS i (aggregate_type, aggregate_id)
  JOIN snapshots s
    ON s.aggregate_type = i.aggregate_type
   AND s.aggregate_id = i.aggregate_id
