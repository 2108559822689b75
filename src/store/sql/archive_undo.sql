-- Marks a partition as restored: from now on readers use its table. Its folder is noted as a former one. $1 starts_at
WITH noted AS (
    INSERT INTO former_folders (folder, starts_at)
    SELECT p.archived_to, p.starts_at
      FROM partitions p
     WHERE p.starts_at = $1
       AND p.archived_to IS NOT NULL
)
UPDATE partitions
   SET archived_at = NULL,
       archived_to = NULL,
       archive_sha256 = NULL,
       restored_at = clock_timestamp(),
       archive_changes = archive_changes + 1
 WHERE starts_at = $1
