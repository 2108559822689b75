-- The folders of a month that no reader uses. $1 starts_at
SELECT folder
  FROM former_folders
 WHERE starts_at = $1
