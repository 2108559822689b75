-- Deletes a group with its projection and its parked streams. The last step of each partition says that the group is
-- deleted, so no session that has read an earlier one takes a step. Returns whether the group existed.
--
--   p_name   the name of the group
--
-- Locks: groups, in SHARE UPDATE EXCLUSIVE mode, so that no group is created or deleted at the same time; claims, in
-- SHARE ROW EXCLUSIVE mode, so that no other session takes a step.
CREATE OR REPLACE FUNCTION delete_group(p_name text) RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
SET lock_timeout = '3s'
AS $$
DECLARE
    v_group groups;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true)
      WHERE current_setting('synchronous_commit') IN ('off', 'local');
    LOCK TABLE groups IN SHARE UPDATE EXCLUSIVE MODE;
    SELECT g.*
      INTO v_group
      FROM groups g
     WHERE g.projection_name = p_name
       FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    LOCK TABLE claims IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO claims (group_no, partition, step, kind, partitions, epoch, last_processed_position, stepped_at)
    SELECT s.group_no, s.partition, s.step + 1, 'deleted', 0, s.epoch, s.last_processed_position, clock_timestamp()
      FROM partition_states(p_group_no => v_group.group_no, p_partitions => v_group.partitions) AS s;
    -- setval is not transactional: after a rollback the bound is too high, and never too low.
    PERFORM setval('claim_step_bound', greatest(
        (SELECT b.last_value FROM claim_step_bound b),
        (SELECT max(c.step) FROM claims c WHERE c.group_no = v_group.group_no)));
    DELETE FROM parked_streams s
     WHERE s.group_no = v_group.group_no;
    DELETE FROM groups g
     WHERE g.group_no = v_group.group_no;
    DELETE FROM projection_positions p
     WHERE p.projection_name = p_name;
    RETURN true;
END
$$;
