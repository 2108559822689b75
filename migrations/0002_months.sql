-- Months: how a partition of events comes into being, and what refuses to change it afterwards.

-- Events are history. Whoever has to erase a payload on purpose disables the trigger first, as the hint says.
CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: events are never changed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege',
              HINT = format('To erase a payload on purpose: ALTER TABLE %I DISABLE TRIGGER %I, as its owner, and UPDATE '
                            'the row. Never DELETE it: versions and positions have no hole.', TG_TABLE_NAME, TG_NAME);
END
$$;

CREATE TRIGGER events_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER event_ids_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event_ids
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Makes a table for a month's events that is not a partition yet: empty, for create_event_month, or to be filled from the
-- archive.
CREATE FUNCTION create_event_table(p_name text) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET client_min_messages = warning
AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', p_name);
    EXECUTE format(
        'ALTER TABLE %I
             ADD CONSTRAINT %I UNIQUE (aggregate_type, aggregate_id, version),
             ADD CONSTRAINT %I UNIQUE (global_position)',
        p_name, p_name || '_aggregate_key', p_name || '_position_key');
    -- Insert-only: vacuum soon and freeze at once, so that a finished month is never rewritten.
    EXECUTE format(
        'ALTER TABLE %I SET (
             autovacuum_vacuum_insert_scale_factor = 0.05,
             autovacuum_freeze_min_age = 0,
             autovacuum_analyze_scale_factor = 0.05)',
        p_name);
    EXECUTE format(
        'CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
             FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
        p_name || '_immutable', p_name);
END
$$;

-- Makes a table that create_event_table has made the partition of a month of the catalogue.
--
-- Locks: SHARE UPDATE EXCLUSIVE on events, by ATTACH. CREATE TABLE ... PARTITION OF would take ACCESS EXCLUSIVE and lock
-- appends out behind any reader.
CREATE FUNCTION attach_event_table(p_name text, p_starts_at timestamptz, p_ends_at timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    EXECUTE format(
        'ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        p_name, p_starts_at, p_ends_at);
END
$$;

-- Makes the partition for the month (UTC) of p_at; false if it is there already.
--
-- Locks: one creator at a time by advisory lock (events, 2); then SHARE UPDATE EXCLUSIVE on events, by ATTACH.
-- CREATE TABLE ... PARTITION OF would take ACCESS EXCLUSIVE and lock appends out behind any reader.
-- SECURITY DEFINER: the append path, whose role owns nothing, makes a month that is missing.
CREATE FUNCTION create_event_month(p_at timestamptz) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path FROM CURRENT
SET client_min_messages = warning
AS $$
DECLARE
    v_start timestamp := date_trunc('month', p_at AT TIME ZONE 'UTC');
    v_starts_at timestamptz := v_start AT TIME ZONE 'UTC';
    v_ends_at timestamptz := (v_start + interval '1 month') AT TIME ZONE 'UTC';
    v_name text := 'events_' || to_char(v_start, 'YYYY_MM');
BEGIN
    PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 2);
    IF EXISTS (SELECT FROM partitions WHERE starts_at = v_starts_at) THEN
        RETURN false;
    END IF;
    PERFORM create_event_table(v_name);
    PERFORM attach_event_table(v_name, v_starts_at, v_ends_at);
    INSERT INTO partitions (starts_at, ends_at, name)
    VALUES (v_starts_at, v_ends_at, v_name);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION create_event_table(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION attach_event_table(text, timestamptz, timestamptz) FROM PUBLIC;
