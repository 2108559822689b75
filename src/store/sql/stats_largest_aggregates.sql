-- The streams with the most events; of equal ones first those that reached the size first.
-- $1 aggregate_type (NULL: any), $2 the largest number of streams, at most 1000
SELECT s.as_of_position, l.aggregate_type, l.aggregate_id, l.version
  FROM statistics s
  LEFT JOIN LATERAL (
       SELECT a.aggregate_type, a.aggregate_id, a.version, a.global_position
         FROM largest_aggregates a
        WHERE $1::text IS NULL
           OR a.aggregate_type = $1
        ORDER BY a.version DESC, a.global_position
        LIMIT $2) AS l
    ON true
 ORDER BY l.version DESC, l.global_position
