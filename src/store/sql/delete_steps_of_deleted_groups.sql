-- Deletes the steps of a deleted group, ten minutes after its deletion. Returns the number of deleted steps.
-- $1 the largest number of steps
WITH RECURSIVE known (group_no) AS (
    (SELECT c.group_no
       FROM claims c
      ORDER BY c.group_no
      LIMIT 1)
    UNION ALL
    SELECT (SELECT c.group_no
              FROM claims c
             WHERE c.group_no > k.group_no
             ORDER BY c.group_no
             LIMIT 1)
      FROM known k
     WHERE k.group_no IS NOT NULL),
gone AS (
    SELECT k.group_no
      FROM known k
     WHERE k.group_no IS NOT NULL
       AND NOT EXISTS (SELECT FROM groups g WHERE g.group_no = k.group_no)
       -- The session that deletes the group has taken the last step of each partition.
       AND NOT EXISTS (
               SELECT
                 FROM claims c
                WHERE c.group_no = k.group_no
                  AND c.stepped_at >= clock_timestamp() - interval '10 minutes')
     LIMIT 1),
old AS (
    SELECT c.group_no, c.partition, c.step
      FROM claims c
      JOIN gone
        ON gone.group_no = c.group_no
     LIMIT $1),
deleted AS (
    DELETE FROM claims c
     USING old o
     WHERE c.group_no = o.group_no
       AND c.partition = o.partition
       AND c.step = o.step
    RETURNING 1)
SELECT count(*)
  FROM deleted
