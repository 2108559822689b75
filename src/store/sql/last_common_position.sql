-- The last position that is the same in an epoch and in all later ones; NULL if no later epoch exists. $1 epoch
SELECT min(first_position) - 1
  FROM epochs
 WHERE epoch > $1
