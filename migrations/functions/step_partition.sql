-- Takes a step of a partition of a group: inserts the next row of claims, and changes parked streams with it.
--
--   p_after           the step that the caller has read, which must still be the last one of the partition
--   p_after_time      the time of that step: after a failover, another step may have its number
--   p_epoch           the epoch that the caller takes for the current one
--   p_step            the new row of claims as JSON, without its times; its step is p_after + 1
--   p_lease_seconds   the lease of a claim begins now, or is extended (NULL: the row keeps its claimed_until)
--   p_rest_seconds    the partition rests from now on (NULL: the row keeps its not_before)
--   p_parked          streams to park, or to change, as a JSON array of rows of parked_streams; instead of its times, a row has
--                     retry_seconds (NULL: an operator decides)
--   p_unparked        streams to remove from parked_streams, as a JSON array of aggregate_type and aggregate_id
--
-- outcome is 'stepped', 'conflict' if the partition has another last step, or its lease or its rest has not ended, or
-- the key of the claim is in use, or 'epoch_changed'. After 'stepped', the other columns are those of the new row.
--
-- Locks: no row of claims. A session waits only for another one that inserts the same step.
CREATE OR REPLACE FUNCTION step_partition(
    p_after bigint,
    p_after_time timestamptz,
    p_epoch integer,
    p_step jsonb,
    p_lease_seconds integer,
    p_rest_seconds integer,
    p_parked jsonb,
    p_unparked jsonb,
    OUT outcome text,
    OUT claimed_until timestamptz,
    OUT not_before timestamptz,
    OUT stepped_at timestamptz
)
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $$
DECLARE
    v_last     claims;
    v_is_known boolean;
    v_new      claims := jsonb_populate_record(NULL::claims, p_step);
BEGIN
    -- A step that a crash loses would hand out the events of one stream to two workers.
    PERFORM set_config('synchronous_commit', 'on', true)
      WHERE current_setting('synchronous_commit') IN ('off', 'local');

    SELECT c.*
      INTO v_last
      FROM claims c
     WHERE c.group_no = v_new.group_no
       AND c.partition = v_new.partition
     ORDER BY c.step DESC
     LIMIT 1;
    stepped_at := clock_timestamp();
    v_is_known := v_last.step = p_after
                  AND v_last.stepped_at = p_after_time
                  AND v_last.partitions = v_new.partitions;
    IF v_is_known IS NOT TRUE THEN  -- marker: compare-and-set
        outcome := 'conflict';
        RETURN;
    END IF;
    IF v_new.kind IN ('claimed', 'expired')
       AND v_last.claim_step IS NOT NULL
       AND v_last.claimed_until > stepped_at THEN  -- marker: live-lease
        outcome := 'conflict';
        RETURN;
    END IF;
    IF v_new.kind = 'claimed' THEN
        IF v_last.not_before > stepped_at THEN
            outcome := 'conflict';
            RETURN;
        END IF;
        -- The events of the claim must be part of the log that has the step. The writer begins an epoch after a failover;
        -- until then, the log has another origin than its last epoch.
        IF (SELECT e.origin <> log_origin() FROM epochs e ORDER BY e.epoch DESC LIMIT 1) THEN
            outcome := 'epoch_changed';
            RETURN;
        END IF;
    END IF;
    IF p_epoch <> (SELECT max(e.epoch) FROM epochs e) THEN  -- marker: epoch
        outcome := 'epoch_changed';
        RETURN;
    END IF;

    claimed_until := coalesce(stepped_at + make_interval(secs => p_lease_seconds), v_new.claimed_until);  -- marker: insert
    not_before := coalesce(stepped_at + make_interval(secs => p_rest_seconds), v_new.not_before);
    INSERT INTO claims (
        group_no, partition, step, kind, partitions, epoch, last_processed_position, claim_step, claimed_to,
        claimed_until, parked_type, parked_id, parked_position, is_complete, not_before, careful_to, expired_leases,
        parked, newly_parked, worker, claim_key, key_use, stepped_at)
    VALUES (
        v_new.group_no, v_new.partition, p_after + 1, v_new.kind, v_new.partitions, v_new.epoch,
        v_new.last_processed_position, v_new.claim_step, v_new.claimed_to,
        claimed_until, v_new.parked_type, v_new.parked_id, v_new.parked_position, v_new.is_complete, not_before,
        v_new.careful_to, v_new.expired_leases,
        v_new.parked, v_new.newly_parked, v_new.worker, v_new.claim_key, v_new.key_use, stepped_at)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        outcome := 'conflict';
        RETURN;
    END IF;

    IF p_parked IS NOT NULL THEN
        INSERT INTO parked_streams AS s (
            group_no, aggregate_type, aggregate_id, bucket, last_processed_position, event_id, event_type, version,
            global_position, attempts, reason, parked_at, failed_at, retry_at)
        SELECT v_new.group_no, r.aggregate_type, r.aggregate_id, r.bucket, r.last_processed_position, r.event_id,
               r.event_type, r.version, r.global_position, r.attempts, r.reason, stepped_at, stepped_at,
               stepped_at + make_interval(secs => r.retry_seconds)
          FROM jsonb_to_recordset(p_parked) AS r (
               aggregate_type text, aggregate_id text, bucket smallint, last_processed_position bigint, event_id uuid,
               event_type text, version integer, global_position bigint, attempts integer, reason text,
               retry_seconds integer)
        ON CONFLICT (group_no, aggregate_type, aggregate_id) DO UPDATE
           SET last_processed_position = greatest(s.last_processed_position, excluded.last_processed_position),
               event_id = excluded.event_id,
               event_type = excluded.event_type,
               version = excluded.version,
               global_position = excluded.global_position,
               attempts = excluded.attempts,
               reason = excluded.reason,
               failed_at = CASE WHEN excluded.attempts > 0 THEN excluded.failed_at ELSE s.failed_at END,
               retry_at = excluded.retry_at;
    END IF;
    IF p_unparked IS NOT NULL THEN
        DELETE FROM parked_streams s
         USING jsonb_to_recordset(p_unparked) AS r (aggregate_type text, aggregate_id text)
         WHERE s.group_no = v_new.group_no
           AND s.aggregate_type = r.aggregate_type
           AND s.aggregate_id = r.aggregate_id;
    END IF;
    outcome := 'stepped';
END
$$;
