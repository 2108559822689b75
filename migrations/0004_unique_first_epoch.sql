-- The first epoch of a new log is a number that no other log has, so that a cursor of another log is refused. It is the
-- time of the log in seconds since 2020, less up to 190,000,000 seconds by chance: a later epoch, which is the time
-- without chance, is always higher. A log with events keeps its first epoch, because cursors with it are in use.
--
-- Locks: append_lock, so that no append is between the check and the change. The append generation is incremented, so
-- that the sessions of running processes read the epoch again.
LOCK TABLE append_lock IN EXCLUSIVE MODE;
SELECT nextval('append_generation');

WITH new_log AS (
    UPDATE epochs
       SET epoch = greatest(2, extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01T00:00:00Z')::integer
                               - (random() * 190000000)::integer)
     WHERE epoch = 1
       AND NOT EXISTS (SELECT FROM events)
       AND NOT EXISTS (SELECT FROM partitions WHERE archived_to IS NOT NULL)
       AND NOT EXISTS (SELECT FROM epochs AS later WHERE later.epoch > 1)
    RETURNING epoch
), positions AS (
    UPDATE projection_positions AS p
       SET epoch = n.epoch
      FROM new_log AS n
     WHERE p.epoch = 1
)
UPDATE verification AS v
   SET epoch = n.epoch
  FROM new_log AS n
 WHERE v.epoch = 1;

ALTER TABLE projection_positions ALTER COLUMN epoch DROP DEFAULT;
