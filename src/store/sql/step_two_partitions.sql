-- Takes two steps in one transaction, and the second one only if the first one was taken; see the function. The parameters
-- are those of step_partition.sql, twice.
SELECT a.outcome, a.claimed_until, a.not_before, a.stepped_at,
       b.outcome, b.claimed_until, b.not_before, b.stepped_at
  FROM step_partition(
           p_after => $1,
           p_epoch => $2,
           p_step => $3::jsonb,
           p_lease_seconds => $4,
           p_rest_seconds => $5,
           p_parked => $6::jsonb,
           p_unparked => $7::jsonb) AS a
 CROSS JOIN LATERAL step_partition(
           -- Without a number, the step is refused.
           p_after => CASE WHEN a.outcome = 'stepped' THEN $8::bigint END,
           p_epoch => $9,
           p_step => $10::jsonb,
           p_lease_seconds => $11,
           p_rest_seconds => $12,
           p_parked => $13::jsonb,
           p_unparked => $14::jsonb) AS b
