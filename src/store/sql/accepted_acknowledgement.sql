-- The number of streams that an accepted acknowledgement of a claim parked; no row if the claim has no acknowledgement of
-- this position, or the group was reset since. $1 group_no, $2 partition, $3 the step of the claim, $4 the epoch of the
-- claim, $5 the acknowledged position
SELECT c.newly_parked
  FROM claims c
 WHERE c.group_no = $1
   AND c.partition = $2
   AND c.step > $3
   -- The step that ended the claim is its last one.
   AND NOT EXISTS (
           SELECT
             FROM claims o
            WHERE o.group_no = $1
              AND o.partition = $2
              AND o.step > $3
              AND o.step < c.step
              AND o.claim_step IS DISTINCT FROM $3)
   AND c.kind = 'acknowledged'
   AND coalesce(c.parked_position, c.last_processed_position) = $5
   AND EXISTS (
           SELECT
             FROM claims h
            WHERE h.group_no = $1
              AND h.partition = $2
              AND h.step = $3
              AND h.claim_step = $3
              AND h.epoch = $4)
   AND NOT EXISTS (
           SELECT
             FROM claims r
            WHERE r.group_no = $1
              AND r.partition = $2
              AND r.step > $3
              AND r.kind = 'reset')
 ORDER BY c.step
 LIMIT 1
