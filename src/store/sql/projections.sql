-- Projections in byte order of their names, each with its position and the time that its first unprocessed event has
-- waited. For an archived event, the first event of its partition is used instead.
-- $1 name of the only projection to return (NULL: all), $2 start of the oldest partition that is not sealed
SELECT p.projection_name,
       p.last_processed_position,
       p.last_processed_at,
       extract(epoch FROM clock_timestamp() - CASE
           WHEN m.archived_at IS NOT NULL THEN m.first_occurred_at
           ELSE (
               SELECT e.occurred_at
                 FROM events e
                WHERE e.global_position > p.last_processed_position
                  AND e.occurred_at >= coalesce(m.starts_at, $2)
                ORDER BY e.global_position
                LIMIT 1)
           END)::double precision AS waiting_seconds
  FROM projection_positions p
  LEFT JOIN LATERAL (
       -- The sealed partition of the first unprocessed event.
       SELECT c.starts_at, c.archived_at, c.first_occurred_at
         FROM partitions c
        WHERE c.sealed_at IS NOT NULL
          AND c.last_position > p.last_processed_position
        ORDER BY c.starts_at
        LIMIT 1) AS m
    ON true
 WHERE $1::text IS NULL
    OR p.projection_name = $1
 ORDER BY p.projection_name
