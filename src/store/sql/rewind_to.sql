-- The last position that is the same in an epoch and in all that followed it; NULL if none followed. $1 the epoch
SELECT min(first_position) - 1
  FROM epochs
 WHERE epoch > $1
