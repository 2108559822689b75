-- Projections in byte order of their names, each with its position and how long its first unprocessed event waits.
-- $1 name of the only one wanted (NULL: all), $2 start of the oldest month that is not rolled up
SELECT p.projection_name,
       p.last_processed_position,
       p.last_processed_at,
       (SELECT extract(epoch FROM clock_timestamp() - e.occurred_at)::double precision
          FROM events e
         WHERE e.global_position > p.last_processed_position
           AND e.occurred_at >= coalesce(
               (SELECT m.starts_at
                  FROM partitions m
                 WHERE m.rolled_up_at IS NOT NULL
                   AND m.last_position > p.last_processed_position
                 ORDER BY m.starts_at
                 LIMIT 1),
               $2)
         ORDER BY e.global_position
         LIMIT 1) AS waits_seconds
  FROM projection_positions p
 WHERE $1::text IS NULL
    OR p.projection_name = $1
 ORDER BY p.projection_name
