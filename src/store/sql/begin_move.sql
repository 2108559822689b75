-- Records that a move has begun. A target refuses all writes at once.
-- $1 id of the move, $2 side of this database, $3 address of the other one
INSERT INTO log_moves (move_id, side, other, frozen_at)
VALUES ($1, $2, $3, CASE WHEN $2 = 'target' THEN clock_timestamp() END)
