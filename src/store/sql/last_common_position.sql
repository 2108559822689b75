-- The last position that is the same in an epoch and in the current history: NULL if the epoch is the current one. For a
-- lost epoch it is the end of what both histories have; 0 if the log does not know where they parted.
-- $1 epoch
SELECT CASE
           WHEN EXISTS (SELECT FROM epochs WHERE epoch = $1) THEN (
               SELECT min(first_position) - 1
                 FROM epochs
                WHERE epoch > $1)
           ELSE coalesce((
               SELECT least(
                          l.first_position - 1,
                          (SELECT min(o.first_position) - 1 FROM epochs o WHERE o.epoch > l.former_epoch))
                 FROM lost_epochs l
                WHERE l.epoch = $1
                  AND EXISTS (SELECT FROM epochs o WHERE o.epoch = l.former_epoch)), 0)
       END
