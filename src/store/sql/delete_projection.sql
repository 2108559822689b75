-- Deletes a projection's position. $1 projection_name
DELETE FROM projection_positions
 WHERE projection_name = $1
