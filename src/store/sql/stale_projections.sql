-- The projections that hold back the archive: those that have not passed the events of a month that would be archived
-- otherwise, the least advanced first.
-- $1 months that ended before this time would be archived, $2 the largest number of rows
SELECT p.projection_name::text,
       p.last_processed_position,
       p.last_processed_at
  FROM projection_positions p
 WHERE p.last_processed_position < (
           SELECT max(m.last_position)
             FROM partitions m
            WHERE m.sealed_at IS NOT NULL
              AND m.archived_at IS NULL
              AND m.restored_at IS NULL
              AND m.ends_at <= $1)
 ORDER BY p.last_processed_position, p.projection_name
 LIMIT $2
