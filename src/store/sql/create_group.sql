-- Creates a group; see the function.
-- $1 name, $2 filter, $3 partitions, $4 lease_seconds, $5 retry_after, $6 paused, $7 the position at which it begins, $8 the
-- client's key (NULL: none), $9 the largest number of projections, $10 the largest number of projections of one key
SELECT create_group(
           p_name => $1,
           p_filter => $2::jsonb,
           p_partitions => $3,
           p_lease_seconds => $4,
           p_retry_after => $5,
           p_paused => $6,
           p_position => $7,
           p_key_id => $8,
           p_limit => $9,
           p_key_limit => $10)
