-- Takes a step of a partition; see the function.
-- $1 the step that was read, $2 the current epoch, $3 the new row, $4 seconds of the lease, $5 seconds of rest, $6 streams
-- to park, $7 streams to remove from the parked ones
SELECT s.outcome, s.claimed_until, s.not_before, s.stepped_at
  FROM step_partition(
           p_after => $1,
           p_epoch => $2,
           p_step => $3::jsonb,
           p_lease_seconds => $4,
           p_rest_seconds => $5,
           p_parked => $6::jsonb,
           p_unparked => $7::jsonb) AS s
