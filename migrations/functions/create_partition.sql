-- Creates the partition for the month (UTC) of p_at. Returns false if it exists already.
--
-- Locks: advisory lock (events, 2), so that one session at a time creates partitions; then SHARE UPDATE EXCLUSIVE on
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
    PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 2);
    IF EXISTS (SELECT FROM partitions WHERE starts_at = v_starts_at) THEN
        RETURN false;
    END IF;
    PERFORM create_partition_table(v_name);
    PERFORM attach_partition_table(v_name, v_starts_at, v_ends_at);
    INSERT INTO partitions (starts_at, ends_at, name)
    VALUES (v_starts_at, v_ends_at, v_name);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION create_partition FROM PUBLIC;
