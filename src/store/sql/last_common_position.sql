-- The last position that is the same in an epoch and in all later ones; NULL if no later epoch exists, and 0 if this log
-- never had the epoch: it belongs to another history, of which the log does not know where it parted from its own.
-- $1 epoch
SELECT CASE
           WHEN EXISTS (SELECT FROM epochs WHERE epoch = $1) THEN (
               SELECT min(first_position) - 1
                 FROM epochs
                WHERE epoch > $1)
           ELSE 0
       END
