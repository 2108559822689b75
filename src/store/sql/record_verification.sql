-- Records the position up to which the log is verified; no row if a later epoch, or a later position of the same epoch,
-- is recorded already. $1 position, $2 epoch
INSERT INTO verification AS v (verified_position, epoch, verified_at)
VALUES ($1, $2, clock_timestamp())
    ON CONFLICT (only_row) DO UPDATE
   SET verified_position = excluded.verified_position,
       epoch = excluded.epoch,
       verified_at = excluded.verified_at
 WHERE (v.epoch, v.verified_position) <= (excluded.epoch, excluded.verified_position)
