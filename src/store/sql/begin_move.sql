-- Records that a move has begun.
-- $1 id of the move, $2 side of this database, $3 address of the other one, $4 whether all writes are refused
INSERT INTO log_moves (move_id, side, other, frozen_at)
VALUES ($1, $2, $3, CASE WHEN $4 THEN clock_timestamp() END)
