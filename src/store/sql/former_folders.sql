-- The folders of a month that no reader uses: former ones, and one that an interrupted archiver has begun. $1 starts_at
SELECT folder
  FROM former_folders
 WHERE starts_at = $1
UNION
SELECT archived_to
  FROM partitions
 WHERE starts_at = $1
   AND archived_at IS NULL
   AND archived_to IS NOT NULL
