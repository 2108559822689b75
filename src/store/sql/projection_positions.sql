-- The positions of some projections. $1 projection_names
SELECT projection_name::text, last_processed_position
  FROM projection_positions
 WHERE projection_name = ANY ($1::text[])
