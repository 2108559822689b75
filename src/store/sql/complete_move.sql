-- Records on the source that the target has taken over.
-- $1 id of the move
UPDATE log_moves
   SET completed_at = clock_timestamp()
 WHERE side = 'source'
   AND move_id = $1
