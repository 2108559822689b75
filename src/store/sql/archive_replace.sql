-- Replaces the folder of an archived partition, which becomes a former one: from now on readers use the new folder.
-- $1 starts_at, $2 the former folder, $3 the new folder, $4 SHA-256 of its manifest
WITH noted AS (
    INSERT INTO former_folders (folder, starts_at)
    VALUES ($2, $1)
), removed AS (
    DELETE FROM former_folders
     WHERE folder = $3
)
UPDATE partitions
   SET archived_to = $3,
       archive_sha256 = $4,
       archive_changes = archive_changes + 1
 WHERE starts_at = $1
   AND archived_to = $2
   AND archived_at IS NOT NULL
