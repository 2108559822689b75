-- The months that are rolled up and have events, oldest first.
SELECT starts_at, ends_at, last_position
  FROM partitions
 WHERE rolled_up_at IS NOT NULL
   AND last_position IS NOT NULL
 ORDER BY starts_at
