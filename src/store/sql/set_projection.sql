-- Sets a projection's position, or creates the projection; no row if a condition does not hold.
-- $1 projection_name, $2 the new position, $3 the expected position (NULL: any), $4 whether it may be created,
-- $5 whether it may be updated, $6 whether it may move backwards
-- Locks: the projection's row.
INSERT INTO projection_positions AS p (projection_name, last_processed_position, last_processed_at, epoch)
SELECT $1, $2, clock_timestamp(), (SELECT max(epoch) FROM epochs)
 WHERE $4
    OR EXISTS (SELECT FROM projection_positions e WHERE e.projection_name = $1)
    ON CONFLICT (projection_name) DO UPDATE
   SET last_processed_position = excluded.last_processed_position,
       last_processed_at = excluded.last_processed_at,
       epoch = excluded.epoch
 WHERE $5
   AND ($3::bigint IS NULL OR p.last_processed_position = $3)
   AND ($6 OR p.last_processed_position <= excluded.last_processed_position)
RETURNING xmax = 0 AS created
