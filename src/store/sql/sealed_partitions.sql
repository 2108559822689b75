-- The sealed partitions that have events, oldest first. archived_to is the folder to read; NULL: the database has the
-- events.
SELECT starts_at, ends_at, last_position, CASE WHEN archived_at IS NOT NULL THEN archived_to END AS archived_to
  FROM partitions
 WHERE sealed_at IS NOT NULL
   AND last_position IS NOT NULL
 ORDER BY starts_at
