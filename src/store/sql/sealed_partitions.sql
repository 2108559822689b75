-- The sealed partitions that have events, oldest first. archived_to is the folder to read, and archive_sha256 the SHA-256
-- that its manifest must have; archived_to is NULL if the database has the events.
SELECT name, starts_at, ends_at, last_position,
       CASE WHEN archived_at IS NOT NULL THEN archived_to END AS archived_to,
       archive_sha256
  FROM partitions
 WHERE sealed_at IS NOT NULL
   AND last_position IS NOT NULL
 ORDER BY starts_at
