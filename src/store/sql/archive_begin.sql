-- Records the folder to which a partition is being archived, and returns it. The folder's name ends with a random
-- number that is new with every attempt, so no process writes to a folder that another database, or a copy of this one,
-- uses. The folder of an interrupted attempt is noted as a former one.
-- $1 starts_at, $2 the month, like 2025-01
WITH noted AS (
    INSERT INTO former_folders (folder, starts_at)
    SELECT p.archived_to, p.starts_at
      FROM partitions p
     WHERE p.starts_at = $1
       AND p.archived_at IS NULL
       AND p.archived_to IS NOT NULL
)
UPDATE partitions
   SET archived_to = $2 || '-' || left(replace(gen_random_uuid()::text, '-', ''), 16)
 WHERE starts_at = $1
   AND archived_at IS NULL
RETURNING archived_to
