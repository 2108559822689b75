-- Marks a partition as restored: from now on readers use its table. $1 starts_at
UPDATE partitions
   SET archived_at = NULL,
       archived_to = NULL,
       archive_sha256 = NULL,
       restored_at = clock_timestamp(),
       archive_changes = archive_changes + 1
 WHERE starts_at = $1
