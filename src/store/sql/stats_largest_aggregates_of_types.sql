-- The streams of some types with the most events; of equal ones first those that reached the size first. Each type costs
-- one range of its index.
-- $1 aggregate_types, without duplicates, $2 the largest number of streams, at most 1000
SELECT s.as_of_position, l.aggregate_type, l.aggregate_id, l.version
  FROM statistics s
  LEFT JOIN LATERAL (
       SELECT largest.aggregate_type, largest.aggregate_id, largest.version, largest.global_position
         FROM unnest($1::text[]) AS wanted (aggregate_type)
        CROSS JOIN LATERAL (
              SELECT a.aggregate_type, a.aggregate_id, a.version, a.global_position
                FROM largest_aggregates a
               WHERE a.aggregate_type = wanted.aggregate_type
               ORDER BY a.version DESC, a.global_position
               LIMIT $2) AS largest
        ORDER BY largest.version DESC, largest.global_position
        LIMIT $2) AS l
    ON true
 ORDER BY l.version DESC, l.global_position
