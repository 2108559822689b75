-- The epoch that the target of a move has begun, with its first position; no row if the move is not complete.
-- $1 id of the move
SELECT epoch, first_position
  FROM epochs
 WHERE reason LIKE '%(move ' || $1::text || ')'
