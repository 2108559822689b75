-- Changes the settings of a group, doubles its partitions, or moves it to another position.
--
--   p_group_no        the group
--   p_revision        the revision that the caller has read
--   p_partitions      the number of partitions: the current one, or twice, four times … as many
--   p_lease_seconds, p_retry_after, p_paused   the settings of the group
--   p_reset_to        a position: the group moves there, and its parked streams are deleted (NULL: it does not move)
--
-- outcome is changed, conflict if the group has another revision or is deleted, or claims_open if a lease prevents
-- doubling or the reset; then open_until is the end of the last lease.
--
-- Every change takes a step of each partition, so a session that has read the former settings takes none with them.
--
-- Locks: the row of the group; claims, in SHARE ROW EXCLUSIVE mode, so that no other session takes a step.
CREATE OR REPLACE FUNCTION change_group(
    p_group_no bigint,
    p_revision bigint,
    p_partitions integer,
    p_lease_seconds integer,
    p_retry_after integer[],
    p_paused boolean,
    p_reset_to bigint,
    OUT outcome text,
    OUT open_until timestamptz
)
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
SET lock_timeout = '3s'
AS $$
DECLARE
    v_group groups;
    v_times integer;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true)
      WHERE current_setting('synchronous_commit') IN ('off', 'local');
    SELECT g.*
      INTO v_group
      FROM groups g
     WHERE g.group_no = p_group_no
       FOR UPDATE;
    IF v_group.revision IS DISTINCT FROM p_revision THEN
        outcome := 'conflict';
        RETURN;
    END IF;
    LOCK TABLE claims IN SHARE ROW EXCLUSIVE MODE;
    v_times := p_partitions / v_group.partitions;

    IF v_times > 1 OR p_reset_to IS NOT NULL THEN
        SELECT max(s.claimed_until)
          INTO open_until
          FROM partition_states(p_group_no => p_group_no, p_partitions => v_group.partitions) AS s
         WHERE s.claim_step IS NOT NULL
           AND s.claimed_until > clock_timestamp();  -- marker: open-claims
        IF open_until IS NOT NULL THEN
            outcome := 'claims_open';
            RETURN;
        END IF;
    END IF;

    IF p_reset_to IS NOT NULL THEN
        DELETE FROM parked_streams s
         WHERE s.group_no = p_group_no;
        INSERT INTO claims (group_no, partition, step, kind, partitions, epoch, last_processed_position, stepped_at)
        SELECT p_group_no, s.partition + n.n * v_group.partitions, s.step + 1, 'reset', p_partitions,
               (SELECT max(e.epoch) FROM epochs e), p_reset_to, clock_timestamp()
          FROM partition_states(p_group_no => p_group_no, p_partitions => v_group.partitions) AS s
         CROSS JOIN generate_series(0, v_times - 1) AS n (n);
        UPDATE projection_positions AS p
           SET last_processed_position = p_reset_to,
               last_processed_at = clock_timestamp(),
               epoch = (SELECT max(e.epoch) FROM epochs e)
         WHERE p.projection_name = v_group.projection_name;
    ELSIF v_times > 1 THEN
        -- The streams of a partition are those of its new parts. An expired claim ends.
        INSERT INTO claims (
            group_no, partition, step, kind, partitions, epoch, last_processed_position, not_before, careful_to,
            expired_leases, parked, stepped_at)
        SELECT p_group_no, d.part, d.step + 1, 'doubled', p_partitions,
               d.epoch, d.last_processed_position, d.not_before,
               CASE WHEN d.has_expired THEN greatest(d.careful_to, d.claimed_to) ELSE d.careful_to END,
               CASE WHEN d.has_expired THEN d.expired_leases + 1 ELSE d.expired_leases END,
               (SELECT count(*)
                  FROM parked_streams k
                 WHERE k.group_no = p_group_no
                   AND k.bucket % p_partitions = d.part),
               clock_timestamp()
          FROM (SELECT s.*,
                       s.partition + n.n * v_group.partitions AS part,
                       s.claim_step IS NOT NULL AND s.parked_type IS NULL AS has_expired
                  FROM partition_states(p_group_no => p_group_no, p_partitions => v_group.partitions) AS s
                 CROSS JOIN generate_series(0, v_times - 1) AS n (n)) AS d;
    ELSE
        INSERT INTO claims (
            group_no, partition, step, kind, partitions, epoch, last_processed_position, claim_step, claimed_to,
            claimed_until, parked_type, parked_id, parked_position, is_complete, not_before, careful_to,
            expired_leases, parked, worker, stepped_at)
        SELECT s.group_no, s.partition, s.step + 1, 'changed', s.partitions, s.epoch, s.last_processed_position,
               s.claim_step, s.claimed_to,
               s.claimed_until, s.parked_type, s.parked_id, s.parked_position, s.is_complete, s.not_before, s.careful_to,
               s.expired_leases, s.parked, s.worker, clock_timestamp()
          FROM partition_states(p_group_no => p_group_no, p_partitions => v_group.partitions) AS s;
    END IF;
    UPDATE groups AS g
       SET partitions = p_partitions,
           lease_seconds = p_lease_seconds,
           retry_after = p_retry_after,
           paused = p_paused,
           revision = g.revision + 1
     WHERE g.group_no = p_group_no;
    outcome := 'changed';
END
$$;
