-- Changes a group; see the function.
-- $1 group_no, $2 revision, $3 partitions, $4 lease_seconds, $5 retry_after, $6 paused, $7 the position to which it is reset
-- (NULL: none)
SELECT c.outcome, extract(epoch FROM c.open_until - clock_timestamp())::double precision
  FROM change_group(
           p_group_no => $1,
           p_revision => $2,
           p_partitions => $3,
           p_lease_seconds => $4,
           p_retry_after => $5,
           p_paused => $6,
           p_reset_to => $7) AS c
