-- The first position of an epoch, and the epoch before it; no row if it is the first one.
-- $1 epoch
SELECT o.first_position, f.epoch AS former_epoch
  FROM epochs o
 CROSS JOIN LATERAL (
       SELECT epoch
         FROM epochs
        WHERE epoch < o.epoch
        ORDER BY epoch DESC
        LIMIT 1) AS f
 WHERE o.epoch = $1
