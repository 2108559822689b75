-- The names of the projections that have not passed a position, in order. $1 the position
SELECT projection_name::text
  FROM projection_positions
 WHERE last_processed_position < $1
 ORDER BY projection_name
