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

-- As before (0006), but for the head: looked for from an older month on, the highest version that the database still has may
-- be of a month before one that is archived.
CREATE OR REPLACE FUNCTION load_aggregate(
    p_aggregate_type text,
    p_aggregate_id text,
    p_open_from timestamptz,
    p_use_snapshot boolean,
    p_revision text,
    p_to_version integer,
    p_limit bigint
)
RETURNS TABLE (
    event_id uuid, aggregate_type varchar, aggregate_id varchar, version integer, global_position bigint,
    event_type varchar, event_data text, metadata text, occurred_at timestamptz, correlation_id uuid, causation_id uuid,
    stream_version integer, first_occurred_at timestamptz, last_occurred_at timestamptz,
    snapshot_version integer, snapshot_revision varchar, snapshot_state text, snapshot_created_at timestamptz,
    snapshot_misfit boolean
)
LANGUAGE plpgsql
STABLE
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_from        timestamptz;
    v_snapshot_at timestamptz;
    v_fits        boolean;
BEGIN
    SELECT greatest(o.version, s.version),
           s.first_occurred_at,
           CASE WHEN o.version >= s.version THEN o.occurred_at ELSE s.last_occurred_at END
      INTO stream_version, first_occurred_at, last_occurred_at
      FROM streams s
      LEFT JOIN LATERAL (
           SELECT e.version, e.occurred_at
             FROM events e
            WHERE e.aggregate_type = p_aggregate_type
              AND e.aggregate_id = p_aggregate_id
              AND e.occurred_at >= p_open_from
            ORDER BY e.version DESC
            LIMIT 1) AS o
        ON true
     WHERE s.aggregate_type = p_aggregate_type
       AND s.aggregate_id = p_aggregate_id;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    v_from := first_occurred_at;
    snapshot_misfit := false;
    IF p_use_snapshot THEN
        SELECT s.version, s.revision, s.state::text, s.created_at, s.occurred_at,
               s.version <= stream_version
               AND s.reducer IS NOT DISTINCT FROM (
                   SELECT r.revision FROM reducers r WHERE r.aggregate_type = p_aggregate_type)
               AND (p_revision IS NULL OR s.revision IS NOT DISTINCT FROM p_revision)
               AND s.checksum = snapshot_checksum(
                   s.aggregate_type, s.aggregate_id, s.version, s.state, s.occurred_at, s.reducer, s.revision)
          INTO snapshot_version, snapshot_revision, snapshot_state, snapshot_created_at, v_snapshot_at, v_fits
          FROM snapshots s
         WHERE s.aggregate_type = p_aggregate_type
           AND s.aggregate_id = p_aggregate_id;
        snapshot_misfit := NOT coalesce(v_fits, true);
        IF v_fits AND snapshot_version <= p_to_version THEN
            v_from := v_snapshot_at;
        ELSE
            snapshot_version := NULL;
            snapshot_revision := NULL;
            snapshot_state := NULL;
            snapshot_created_at := NULL;
        END IF;
    END IF;
    RETURN NEXT;

    RETURN QUERY
    SELECT e.event_id, e.aggregate_type, e.aggregate_id, e.version, e.global_position,
           e.event_type, e.event_data::text, e.metadata::text, e.occurred_at, e.correlation_id, e.causation_id,
           NULL::integer, NULL::timestamptz, NULL::timestamptz,
           NULL::integer, NULL::varchar, NULL::text, NULL::timestamptz,
           NULL::boolean
      FROM events e
     WHERE e.aggregate_type = p_aggregate_type
       AND e.aggregate_id = p_aggregate_id
       AND e.version > coalesce(snapshot_version, 0)
       AND e.version <= p_to_version
       AND e.occurred_at >= v_from
       AND e.occurred_at <= last_occurred_at
     ORDER BY e.version
     LIMIT p_limit;
END
$$;

REVOKE ALL ON FUNCTION create_event_table(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION attach_event_table(text, timestamptz, timestamptz) FROM PUBLIC;
