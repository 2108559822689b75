-- The move of this log; no row if there is none.
SELECT move_id, side, other, frozen_at IS NOT NULL AS is_frozen, completed_at IS NOT NULL AS is_completed
  FROM log_moves
