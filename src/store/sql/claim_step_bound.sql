-- The highest number of a claim of a deleted group.
SELECT last_value
  FROM claim_step_bound
