-- A single event has a procedure of its own: under little load nearly every batch is one, and the arrays of a batch cost more
-- than to write an event.

-- Decides and writes a single event, if that is plain: no known id, the right version, no lost positions. Otherwise it does
-- nothing and answers a version of NULL, and append_events has the whole decision. Called by the procedure append_event alone.
--
--   p_expected            expected version: n >= 0 exactly n, -1 any, -2 the stream exists
--   p_id_is_new           the caller has just made the event id: it is not known
--   p_position_floor      highest position that the caller has seen
--   p_now                 a clock set by a test; NULL: the server's
--   stream_no, p_head     number and version of the stream, if known; as in append_events_locked
--   turn .. open_from     the same
--   version               of what was written, at log_position and log_time; NULL: nothing was
--
-- Locks and plans: as in append_events_locked (migrations/0003_append.sql).
CREATE FUNCTION append_event_locked(
    p_aggregate_type text,
    p_aggregate_id text,
    p_expected integer,
    p_event_id uuid,
    p_event_type text,
    p_event_data jsonb,
    p_metadata jsonb,
    p_correlation_id uuid,
    p_causation_id uuid,
    p_id_is_new boolean,
    p_position_floor bigint,
    p_now timestamptz,
    p_head integer,
    INOUT stream_no bigint,
    INOUT turn bigint,
    INOUT log_position bigint,
    INOUT log_time timestamptz,
    INOUT open_from timestamptz,
    OUT version integer
)
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    any_version    CONSTANT integer := -1;
    exists_version CONSTANT integer := -2;

    v_turn  bigint;
    v_known boolean;
    v_head  integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_event needs READ COMMITTED: an older snapshot would not see the last append';
    END IF;
    PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);

    -- Where the log stands.
    v_turn := nextval('append_turns');
    IF v_turn IS DISTINCT FROM turn + 1 THEN
        SELECT l.log_position, l.log_time, l.open_from
          INTO log_position, log_time, open_from
          FROM end_of_log() AS l;
        stream_no := NULL;
    END IF;
    turn := v_turn;

    -- The stream, its head, and whether the id is known.
    IF stream_no IS NOT NULL THEN
        v_head := p_head;
        -- IF and not AND: an expression that holds a query is a statement, even where it need not be asked.
        IF p_id_is_new THEN
            v_known := false;
        ELSE
            v_known := EXISTS (SELECT FROM event_ids k WHERE k.event_id = p_event_id);
        END IF;
    ELSE
        SELECT NOT p_id_is_new AND EXISTS (SELECT FROM event_ids k WHERE k.event_id = p_event_id),
               s.stream_no,
               coalesce(s.version, 0)
          INTO v_known, stream_no, v_head
          FROM (VALUES (1)) AS always
          LEFT JOIN streams s
            ON s.aggregate_type = p_aggregate_type
           AND s.aggregate_id = p_aggregate_id;
        IF stream_no IS NOT NULL THEN
            v_head := greatest(
                (SELECT e.version
                   FROM events e
                  WHERE e.aggregate_type = p_aggregate_type
                    AND e.aggregate_id = p_aggregate_id
                    AND e.occurred_at >= open_from
                    AND e.occurred_at <= log_time
                  ORDER BY e.version DESC
                  LIMIT 1),
                v_head);
        END IF;
    END IF;

    IF v_known
       OR p_position_floor > log_position
       OR NOT (p_expected = v_head
               OR p_expected = any_version
               OR (p_expected = exists_version AND v_head > 0)) THEN
        RETURN;
    END IF;

    version := v_head + 1;
    log_position := log_position + 1;
    log_time := greatest(coalesce(p_now, clock_timestamp()), log_time);
    INSERT INTO events (
           event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata,
           occurred_at, correlation_id, causation_id, global_position)
    VALUES (p_event_id, p_aggregate_type, p_aggregate_id, version, p_event_type, p_event_data, p_metadata,
            log_time, p_correlation_id, p_causation_id, log_position);
    IF stream_no IS NULL THEN
        stream_no := nextval('streams_stream_no_seq');
        INSERT INTO streams (stream_no, aggregate_type, aggregate_id, first_occurred_at)
        VALUES (stream_no, p_aggregate_type, p_aggregate_id, log_time);
    END IF;
    INSERT INTO event_ids (event_id, stream_no, version, global_position, occurred_at, content_hash)
    VALUES (p_event_id, stream_no, version, log_position, log_time,
            event_content_hash(p_event_type, p_event_data, p_metadata, p_correlation_id, p_causation_id));
END
$$;

-- The way of a single event into the log; what migrations/0003_append.sql says of append_events holds for it.
CREATE PROCEDURE append_event(
    p_aggregate_type text,
    p_aggregate_id text,
    p_expected integer,
    p_event_id uuid,
    p_event_type text,
    p_event_data jsonb,
    p_metadata jsonb,
    p_correlation_id uuid,
    p_causation_id uuid,
    p_id_is_new boolean,
    p_position_floor bigint,
    p_now timestamptz,
    p_head integer,
    INOUT stream_no bigint,
    INOUT turn bigint,
    INOUT log_position bigint,
    INOUT log_time timestamptz,
    INOUT open_from timestamptz,
    OUT version integer
)
LANGUAGE plpgsql
AS $$
BEGIN
    SELECT d.*
      INTO stream_no, turn, log_position, log_time, open_from, version
      FROM append_event_locked(
               p_aggregate_type, p_aggregate_id, p_expected, p_event_id, p_event_type, p_event_data, p_metadata,
               p_correlation_id, p_causation_id, p_id_is_new, p_position_floor, p_now, p_head, stream_no,
               turn, log_position, log_time, open_from) AS d;
    COMMIT;
END
$$;

REVOKE ALL ON FUNCTION append_event_locked FROM PUBLIC;
REVOKE ALL ON PROCEDURE append_event FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT EXECUTE ON FUNCTION append_event_locked TO annals_app;
        GRANT EXECUTE ON PROCEDURE append_event TO annals_app;
    END IF;
END
$$;
