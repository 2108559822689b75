-- Takes two steps in one transaction, and the second one only if the first one was taken; see the function. The parameters
-- are those of step_partition.sql, twice. $10 is NULL if the second step follows the first one in the same partition.
SELECT a.outcome, a.claimed_until, a.not_before, a.stepped_at,
       b.outcome, b.claimed_until, b.not_before, b.stepped_at
  FROM step_partition(
           p_after => $1,
           p_after_time => $2,
           p_epoch => $3,
           p_step => $4::jsonb,
           p_lease_seconds => $5,
           p_rest_seconds => $6,
           p_parked => $7::jsonb,
           p_unparked => $8::jsonb) AS a
 CROSS JOIN LATERAL step_partition(
           -- Without a number, the step is refused.
           p_after => CASE WHEN a.outcome = 'stepped' THEN $9::bigint END,
           p_after_time => coalesce($10, a.stepped_at),
           p_epoch => $11,
           p_step => $12::jsonb,
           p_lease_seconds => $13,
           p_rest_seconds => $14,
           p_parked => $15::jsonb,
           p_unparked => $16::jsonb) AS b
