-- Deletes a projection's position, unless a group moves it. $1 projection_name
DELETE FROM projection_positions
 WHERE projection_name = $1
   AND NOT EXISTS (SELECT FROM groups g WHERE g.projection_name = $1)
