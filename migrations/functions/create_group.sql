-- Creates a group, with its projection and the first step of each partition.
--
--   p_name                   the name of the group and of its projection
--   p_filter                 the events of the group
--   p_partitions             the number of partitions
--   p_lease_seconds, p_retry_after, p_paused   the settings of the group
--   p_position               where the group begins
--   p_key_id                 the API key of the client (NULL: none)
--   p_limit, p_key_limit     the largest number of projections, and of those that one key has created
--
-- Returns created, limit, key_limit, or conflict if a group or another projection has the name.
--
-- Locks: those of set_projection; groups, in SHARE UPDATE EXCLUSIVE mode, so that no group is deleted at the same time.
CREATE OR REPLACE FUNCTION create_group(
    p_name text,
    p_filter jsonb,
    p_partitions integer,
    p_lease_seconds integer,
    p_retry_after integer[],
    p_paused boolean,
    p_position bigint,
    p_key_id text,
    p_limit bigint,
    p_key_limit bigint
) RETURNS text
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $$
DECLARE
    v_outcome  text;
    v_group_no bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true)
      WHERE current_setting('synchronous_commit') IN ('off', 'local');
    SELECT s.outcome
      INTO v_outcome
      FROM set_projection(
               p_name => p_name,
               p_position => p_position,
               p_expected => NULL,
               p_may_create => true,
               p_may_update => false,
               p_may_regress => false,
               p_key_id => p_key_id,
               p_limit => p_limit,
               p_key_limit => p_key_limit) AS s;
    IF v_outcome <> 'created' THEN
        RETURN CASE WHEN v_outcome IN ('limit', 'key_limit') THEN v_outcome ELSE 'conflict' END;
    END IF;
    LOCK TABLE groups IN SHARE UPDATE EXCLUSIVE MODE;
    INSERT INTO groups (projection_name, partitions, filter, lease_seconds, retry_after, paused)
    VALUES (p_name, p_partitions, p_filter, p_lease_seconds, p_retry_after, p_paused)
    RETURNING group_no
      INTO v_group_no;
    INSERT INTO claims (group_no, partition, step, kind, partitions, epoch, last_processed_position, stepped_at)
    SELECT v_group_no,
           p.partition,
           (SELECT b.last_value + 1 FROM claim_step_bound b),
           'created',
           p_partitions,
           (SELECT max(e.epoch) FROM epochs e),
           p_position,
           clock_timestamp()
      FROM generate_series(0, p_partitions - 1) AS p (partition);
    RETURN 'created';
END
$$;
