-- Loads an aggregate in one statement. The first row holds the stream's head and the snapshot that may be used. The
-- rows after it hold the events after that snapshot, oldest first. No row if the stream does not exist.
--
--   p_open_from     start of the oldest partition that is not sealed, as in stream_head
--   p_use_snapshot  whether a snapshot may be used
--   p_revision      the revision that the snapshot must have; NULL: any
--   p_to_version    the last version to return; a snapshot of a later version is not used
--   p_limit         the largest number of events to return
--
-- This is a function and not one query because each of its statements bounds occurred_at by what the statement before
-- it returned; one query would open all partitions. A snapshot that is not usable (of another reducer or revision, of a
-- later version than the head, or with a wrong checksum) is ignored and reported in unusable_snapshot.
--
-- Locks: those of reading.
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
    event_id uuid,
    aggregate_type varchar,
    aggregate_id varchar,
    version integer,
    global_position bigint,
    event_type varchar,
    event_data jsonb,
    metadata jsonb,
    occurred_at timestamptz,
    correlation_id uuid,
    causation_id uuid,
    stream_version integer,
    first_occurred_at timestamptz,
    last_occurred_at timestamptz,
    snapshot_version integer,
    snapshot_revision varchar,
    snapshot_state jsonb,
    snapshot_created_at timestamptz,
    unusable_snapshot boolean
)
LANGUAGE plpgsql
STABLE
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_from        timestamptz;
    v_snapshot_at timestamptz;
    v_is_usable   boolean;
BEGIN
    SELECT h.version, h.first_occurred_at, h.last_occurred_at
      INTO stream_version, first_occurred_at, last_occurred_at
      FROM stream_head(p_aggregate_type, p_aggregate_id, p_open_from) AS h;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    v_from := first_occurred_at;
    unusable_snapshot := false;
    IF p_use_snapshot THEN
        SELECT s.version, s.revision, s.state, s.created_at, s.occurred_at,
               s.version <= stream_version
               AND s.reducer IS NOT DISTINCT FROM (
                   SELECT r.revision
                     FROM reducers r
                    WHERE r.aggregate_type = p_aggregate_type)
               AND (p_revision IS NULL OR s.revision IS NOT DISTINCT FROM p_revision)
               AND s.checksum = snapshot_checksum(
                   s.aggregate_type, s.aggregate_id, s.version, s.state, s.occurred_at, s.reducer, s.revision)
          INTO snapshot_version, snapshot_revision, snapshot_state, snapshot_created_at, v_snapshot_at, v_is_usable
          FROM snapshots s
         WHERE s.aggregate_type = p_aggregate_type
           AND s.aggregate_id = p_aggregate_id;
        unusable_snapshot := NOT coalesce(v_is_usable, true);
        IF v_is_usable AND snapshot_version <= p_to_version THEN
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
           e.event_type, e.event_data, e.metadata, e.occurred_at, e.correlation_id, e.causation_id,
           NULL::integer, NULL::timestamptz, NULL::timestamptz,
           NULL::integer, NULL::varchar, NULL::jsonb, NULL::timestamptz,
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
