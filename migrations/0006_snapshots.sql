-- Snapshots: what an aggregate was at a version, so that a load need not begin at its first event.

SET LOCAL lock_timeout = '3s';

-- The reducer that made the state; NULL: a client did. It fits only as long as it is the type's.
ALTER TABLE snapshots ADD COLUMN reducer bigint;

-- What a snapshot must still say when it is used: everything that a load believes. In PL/pgSQL, because the same in SQL could not
-- be inlined (it calls what is only STABLE), and every load would parse and plan it anew.
CREATE FUNCTION snapshot_checksum(
    p_aggregate_type text,
    p_aggregate_id text,
    p_version integer,
    p_state jsonb,
    p_occurred_at timestamptz,
    p_reducer bigint,
    p_revision text
)
RETURNS bytea
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    RETURN sha256(convert_to(
        jsonb_build_array(
            p_aggregate_type, p_aggregate_id, p_version, p_state,
            (extract(epoch FROM p_occurred_at) * 1000000)::bigint, p_reducer, p_revision)::text,
        'UTF8'));
END
$$;

-- An aggregate in one statement: first a row that says where its stream stands and which snapshot may be used, then the
-- events after that snapshot, oldest first. No row if the stream does not exist.
--
--   p_open_from     start of the oldest month that is not rolled up. An older one does no harm: the highest version that is found
--                   may then be of a month before one that is archived, and what was rolled up is higher
--   p_use_snapshot  whether a snapshot may be used
--   p_revision      the revision that it must have; NULL: any
--   p_to_version    the last version wanted; a snapshot of a later one is of no use then
--   p_limit         events at most
--
-- A function, and not one query, because each of its statements names its months: planned as one, all of them would be
-- opened. A snapshot that does not fit (of another reducer or revision, of a later version, with a wrong checksum) is
-- passed over, and told.
--
-- Locks: none but those of reading.
CREATE FUNCTION load_aggregate(
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
    event_type varchar, event_data jsonb, metadata jsonb, occurred_at timestamptz, correlation_id uuid, causation_id uuid,
    stream_version integer, first_occurred_at timestamptz, last_occurred_at timestamptz,
    snapshot_version integer, snapshot_revision varchar, snapshot_state jsonb, snapshot_created_at timestamptz,
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
        SELECT s.version, s.revision, s.state, s.created_at, s.occurred_at,
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
