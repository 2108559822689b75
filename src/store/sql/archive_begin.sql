-- Notes where a month is being archived, unless that is noted already; where it is. The folder's name ends with a random
-- number, so that nobody else writes there: another database, or this one before it was restored.
-- $1 starts_at, $2 the month, like 2025-01
UPDATE partitions
   SET archived_to = coalesce(archived_to, $2 || '-' || left(replace(gen_random_uuid()::text, '-', ''), 16))
 WHERE starts_at = $1
   AND archived_at IS NULL
RETURNING archived_to
