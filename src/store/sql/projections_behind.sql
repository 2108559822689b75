-- Projections that have not passed a position, by name. $1 the position
SELECT projection_name::text
  FROM projection_positions
 WHERE last_processed_position < $1
 ORDER BY projection_name
