-- Takes a step of a partition; see the function.
-- $1 the step that was read, $2 its time, $3 the current epoch, $4 the new row, $5 seconds of the lease, $6 seconds of
-- rest, $7 streams to park, $8 streams to remove from the parked ones
SELECT s.outcome, s.claimed_until, s.not_before, s.stepped_at
  FROM step_partition(
           p_after => $1,
           p_after_time => $2,
           p_epoch => $3,
           p_step => $4::jsonb,
           p_lease_seconds => $5,
           p_rest_seconds => $6,
           p_parked => $7::jsonb,
           p_unparked => $8::jsonb) AS s
