-- Archive: months that have left the database, and how one comes back.

SET LOCAL lock_timeout = '3s';

-- archived_to names the month's folder in the archive as soon as somebody begins to write it; archived_at says that it is
-- complete and verified: from then on the month is read there, and its table may go. archive_changes counts how often the
-- month went or came: whoever reads looks at it before and after, and knows whether what was read can be relied on.
-- restored_at keeps a month that somebody has brought back from being archived again by itself.
ALTER TABLE partitions
    ADD COLUMN first_occurred_at timestamptz,
    ADD COLUMN last_occurred_at  timestamptz,
    ADD COLUMN archived_at       timestamptz,
    ADD COLUMN archive_sha256    text,
    ADD COLUMN archive_changes   integer NOT NULL DEFAULT 0,
    ADD COLUMN restored_at       timestamptz,
    ADD CONSTRAINT partitions_archive_complete CHECK (
        archived_at IS NULL
        OR (rolled_up_at IS NOT NULL AND archived_to IS NOT NULL AND archive_sha256 IS NOT NULL));

UPDATE partitions p
   SET first_occurred_at = (
           SELECT e.occurred_at
             FROM events e
            WHERE e.occurred_at >= p.starts_at
              AND e.occurred_at < p.ends_at
            ORDER BY e.global_position
            LIMIT 1),
       last_occurred_at = (
           SELECT e.occurred_at
             FROM events e
            WHERE e.occurred_at >= p.starts_at
              AND e.occurred_at < p.ends_at
            ORDER BY e.global_position DESC
            LIMIT 1)
 WHERE p.rolled_up_at IS NOT NULL;

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

-- As before, in the words of the two above.
--
-- Locks: one creator at a time by advisory lock (events, 2); then SHARE UPDATE EXCLUSIVE on events.
CREATE OR REPLACE FUNCTION create_event_month(p_at timestamptz) RETURNS boolean
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
