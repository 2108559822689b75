-- Creates the partition for the month (UTC) of p_at. Returns false if it exists already.
--
-- A caller without the rights of the owner gets AN003 for a month that no event can be in soon: a month that is more
-- than a year after both the last partition and the present, or a month before that of the last event, because times
-- never go backwards along the log.
--
-- Locks: partition_lock, so that one session at a time creates partitions; then SHARE UPDATE EXCLUSIVE on
-- events, by ATTACH.
-- SECURITY DEFINER: the append path creates a missing partition, and its role owns nothing.
CREATE OR REPLACE FUNCTION create_partition(p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path FROM CURRENT
SET client_min_messages = warning
AS $$
DECLARE
    v_start     timestamp := date_trunc('month', p_at AT TIME ZONE 'UTC');
    v_starts_at timestamptz := v_start AT TIME ZONE 'UTC';
    v_ends_at   timestamptz := (v_start + interval '1 month') AT TIME ZONE 'UTC';
    v_name      text := 'events_' || to_char(v_start, 'YYYY_MM');
BEGIN
    LOCK TABLE partition_lock IN EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM partitions WHERE starts_at = v_starts_at) THEN
        RETURN false;
    END IF;
    IF NOT pg_has_role(session_user, current_user, 'MEMBER')
       AND (v_starts_at > greatest(clock_timestamp(), (SELECT max(p.ends_at) FROM partitions p)) + interval '1 year'
            OR v_ends_at <= (SELECT l.occurred_at
                               FROM last_event((SELECT min(p.starts_at)
                                                  FROM partitions p
                                                 WHERE p.sealed_at IS NULL)) AS l)) THEN
        RAISE EXCEPTION 'no event can be in the month % soon', to_char(v_start, 'YYYY-MM')
            USING ERRCODE = 'AN003';
    END IF;
    PERFORM create_partition_table(v_name);
    PERFORM attach_partition_table(v_name, v_starts_at, v_ends_at);
    INSERT INTO partitions (starts_at, ends_at, name)
    VALUES (v_starts_at, v_ends_at, v_name);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION create_partition FROM PUBLIC;
