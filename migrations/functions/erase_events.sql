-- Erases the content of events. Returns the number of the erasure; NULL if all of it was erased before. When the
-- transaction is committed, no statement returns the content any more.
--
--   p_reason, p_request, p_requested_by   as in the table erasures
--   p_members                             the members to erase, as in the table erased_events; NULL: all
--   p_positions .. p_versions             the events, in the order of their positions: position, time, id, stream and
--                                         version of each
--   p_erasure, p_requested_at             the number and the time of the erasure in the log from which it was exported;
--                                         NULL: the next number, and now. If the number is not above all others, it is
--                                         the next one, too.
--
-- The events of archived months stay in their files until those are written again. Readers mask them by the table
-- erased_events. The caller has checked that archived events have the members.
-- Raises AN004 if an event is neither in a table nor archived: its month was archived or restored at this moment. The
-- caller tries again.
--
-- Locks: erasures in SHARE ROW EXCLUSIVE mode first, so that the numbers of erasures are committed in their order; ROW
-- EXCLUSIVE on events and event_ids; then snapshots in SHARE ROW EXCLUSIVE mode, so that no session stores a snapshot
-- of the former content afterwards (see put_snapshot). The append lock is not acquired: appends continue.
-- SECURITY DEFINER: the role of the service may not change events in any other way. The setting annals.erasing is on
-- during the two updates only. It is not in a SET clause of the function, because that needs a superuser: PostgreSQL
-- does not know the setting.
-- Lines with a marker are patched by the broken builds of annals-torture.
CREATE OR REPLACE FUNCTION erase_events(
    p_reason text,
    p_request jsonb,
    p_requested_by text,
    p_members text[],
    p_positions bigint[],
    p_times timestamptz[],
    p_event_ids uuid[],
    p_aggregate_types text[],
    p_aggregate_ids text[],
    p_versions integer[],
    p_erasure bigint DEFAULT NULL,
    p_requested_at timestamptz DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    v_from      timestamptz;
    v_to        timestamptz;
    v_erasure   bigint;
    -- The events that other erasures have erased.
    v_erased    bigint[];
    -- The events that must be in a table, because their month is not archived.
    v_in_tables bigint[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an erasure needs the isolation level read committed'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    LOCK TABLE erasures IN SHARE ROW EXCLUSIVE MODE;

    -- Another request may have erased some of the events in the meantime.
    v_erased := ARRAY(
        SELECT d.global_position
          FROM erased_events d
         WHERE d.global_position = ANY (p_positions)
           AND (d.members IS NULL OR d.members @> p_members));
    SELECT array_agg(i.global_position ORDER BY i.n),
           array_agg(i.occurred_at ORDER BY i.n),
           array_agg(i.event_id ORDER BY i.n),
           array_agg(i.aggregate_type ORDER BY i.n),
           array_agg(i.aggregate_id ORDER BY i.n),
           array_agg(i.version ORDER BY i.n),
           min(i.occurred_at),
           max(i.occurred_at)
      INTO p_positions, p_times, p_event_ids, p_aggregate_types, p_aggregate_ids, p_versions, v_from, v_to
      FROM unnest(p_positions, p_times, p_event_ids, p_aggregate_types, p_aggregate_ids, p_versions) WITH ORDINALITY
           AS i (global_position, occurred_at, event_id, aggregate_type, aggregate_id, version, n)
     WHERE i.global_position <> ALL (v_erased);
    IF p_positions IS NULL THEN
        RETURN NULL;
    END IF;

    IF p_erasure > coalesce((SELECT max(x.erasure) FROM erasures x), 0) THEN
        v_erasure := setval('erasures_erasure_seq', p_erasure);
    ELSE
        v_erasure := nextval('erasures_erasure_seq');
    END IF;
    INSERT INTO erasures (
           erasure, reason, request, aggregate_types, requested_at, requested_by, events, streams, snapshots)
    SELECT v_erasure, p_reason, p_request, array_agg(DISTINCT i.aggregate_type),
           coalesce(p_requested_at, clock_timestamp()), p_requested_by,
           count(*), count(DISTINCT (i.aggregate_type, i.aggregate_id)), 0
      FROM unnest(p_aggregate_types, p_aggregate_ids) AS i (aggregate_type, aggregate_id);

    PERFORM set_config('annals.erasing', 'on', true);  -- marker: begin-changes
    UPDATE events AS e
       SET event_data = erase_members(e.event_data, 'event_data', p_members),
           metadata = erase_members(e.metadata, 'metadata', p_members)
     WHERE e.global_position = ANY (p_positions)
       AND e.occurred_at >= v_from
       AND e.occurred_at <= v_to;

    -- A hash would confirm guesses of the content.
    UPDATE event_ids AS k
       SET content_hash = 0
     WHERE k.event_id = ANY (p_event_ids);
    PERFORM set_config('annals.erasing', 'off', true);  -- marker: end-changes

    INSERT INTO erasure_months (erasure, starts_at, events, archived)
    SELECT v_erasure, p.starts_at, count(*), bool_or(p.archived_at IS NOT NULL)
      FROM unnest(p_times) AS i (occurred_at)
      JOIN partitions p
        ON p.starts_at <= i.occurred_at
       AND p.ends_at > i.occurred_at
     GROUP BY p.starts_at;
    v_in_tables := ARRAY(
        SELECT i.global_position
          FROM unnest(p_positions, p_times) AS i (global_position, occurred_at)
         WHERE NOT EXISTS (
               SELECT
                 FROM partitions p
                WHERE p.starts_at <= i.occurred_at
                  AND p.ends_at > i.occurred_at
                  AND p.archived_at IS NOT NULL));
    IF cardinality(v_in_tables) <> (
       SELECT count(*)
         FROM events e
        WHERE e.global_position = ANY (v_in_tables)
          AND e.occurred_at >= v_from
          AND e.occurred_at <= v_to) THEN
        RAISE EXCEPTION 'a month was archived or restored at this moment'
            USING ERRCODE = 'AN004';
    END IF;

    INSERT INTO erased_events (global_position, erasure, event_id, occurred_at, members)
    SELECT i.global_position, v_erasure, i.event_id, i.occurred_at, p_members
      FROM unnest(p_positions, p_event_ids, p_times) AS i (global_position, event_id, occurred_at);

    INSERT INTO erased_streams (aggregate_type, aggregate_id, erasure, versions)
    SELECT r.aggregate_type, r.aggregate_id, v_erasure,
           jsonb_agg(jsonb_build_array(r.first_version, r.last_version) ORDER BY r.first_version)
      FROM (
           SELECT i.aggregate_type, i.aggregate_id, min(i.version) AS first_version, max(i.version) AS last_version
             FROM (
                  SELECT e.aggregate_type, e.aggregate_id, e.version,
                         e.version - row_number() OVER (
                             PARTITION BY e.aggregate_type, e.aggregate_id
                             ORDER BY e.version) AS range
                    FROM unnest(p_aggregate_types, p_aggregate_ids, p_versions)
                         AS e (aggregate_type, aggregate_id, version)) AS i
            GROUP BY i.aggregate_type, i.aggregate_id, i.range) AS r
     GROUP BY r.aggregate_type, r.aggregate_id;

    LOCK TABLE snapshots IN SHARE ROW EXCLUSIVE MODE;
    WITH deleted AS (
        DELETE FROM snapshots s
         USING erased_streams d
         WHERE d.erasure = v_erasure
           AND s.aggregate_type = d.aggregate_type
           AND s.aggregate_id = d.aggregate_id
        RETURNING 1
    )
    UPDATE erasures
       SET snapshots = (SELECT count(*) FROM deleted)
     WHERE erasure = v_erasure;
    RETURN v_erasure;  -- marker: erased
END
$$;

REVOKE ALL ON FUNCTION erase_events FROM PUBLIC;
