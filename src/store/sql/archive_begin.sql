-- Notes where a month is being archived; where it is. The folder's name ends with a random number, new with every try: so
-- nobody writes to a folder that another database, or a copy of this one, relies on. $1 starts_at, $2 the month, like 2025-01
UPDATE partitions
   SET archived_to = $2 || '-' || left(replace(gen_random_uuid()::text, '-', ''), 16)
 WHERE starts_at = $1
   AND archived_at IS NULL
RETURNING archived_to
