-- The positions of all projections. $1 the largest number of projections
SELECT projection_name::text, last_processed_position
  FROM projection_positions
 ORDER BY projection_name
 LIMIT $1
