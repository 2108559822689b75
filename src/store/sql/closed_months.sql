-- The months that are rolled up and have events, oldest first; archived_to is where a month is read, NULL: here.
SELECT starts_at, ends_at, last_position, CASE WHEN archived_at IS NOT NULL THEN archived_to END AS archived_to
  FROM partitions
 WHERE rolled_up_at IS NOT NULL
   AND last_position IS NOT NULL
 ORDER BY starts_at
