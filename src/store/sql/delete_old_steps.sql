-- Deletes old steps of a partition, which neither its state nor its open claim needs. Returns the last deleted step; NULL
-- if there is none. $1 group_no, $2 partition, $3 the step up to which an earlier call has deleted, $4 the largest number
-- of steps
WITH last AS (
    SELECT least(c.step, c.claim_step) AS needed_from
      FROM claims c
     WHERE c.group_no = $1
       AND c.partition = $2
     ORDER BY c.step DESC
     LIMIT 1),
old AS (
    SELECT c.step
      FROM claims c
     WHERE c.group_no = $1
       AND c.partition = $2
       AND c.step > $3
       AND c.step < (SELECT l.needed_from FROM last l)
       AND c.stepped_at < clock_timestamp() - interval '10 minutes'
     ORDER BY c.step
     LIMIT $4),
deleted AS (
    DELETE FROM claims c
     USING old o
     WHERE c.group_no = $1
       AND c.partition = $2
       AND c.step = o.step
    RETURNING c.step)
SELECT max(d.step)
  FROM deleted d
