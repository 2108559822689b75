-- Records on the source that the target has taken over.
UPDATE log_moves
   SET completed_at = clock_timestamp()
 WHERE side = 'source'
