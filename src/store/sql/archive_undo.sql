-- The month is read here again. $1 starts_at
UPDATE partitions
   SET archived_at = NULL,
       archived_to = NULL,
       archive_sha256 = NULL
 WHERE starts_at = $1
