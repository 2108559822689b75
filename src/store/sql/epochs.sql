-- All epochs, oldest first.
SELECT epoch, first_position, began_at, reason
  FROM epochs
 ORDER BY epoch
