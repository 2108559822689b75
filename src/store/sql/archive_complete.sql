-- Marks a partition as archived: from now on readers use the archive.
-- $1 starts_at, $2 its folder, $3 SHA-256 of its manifest
UPDATE partitions
   SET archived_at = clock_timestamp(),
       archive_sha256 = $3,
       restored_at = NULL,
       archive_changes = archive_changes + 1
 WHERE starts_at = $1
   AND archived_to = $2
   AND archived_at IS NULL
