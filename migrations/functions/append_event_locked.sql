-- Decides and writes a single event under the append lock, if the append is plain: the event id is not known, the
-- version is as expected, and no position was lost. Otherwise it writes nothing and returns a version of NULL, and
-- append_events decides the append. Only the procedure append_event calls it, and commits.
--
-- Under little load nearly every batch is a single event, and the arrays of append_events cost more than writing an
-- event.
--
-- The append:
--   p_expected                  the expected version: n >= 0 exactly n, -1 any, -2 the stream exists
--   p_id_is_new                 the caller generated the event id for this call, so it is not known
--   p_position_floor            the highest position that the caller has served
--   p_now                       the time of a clock that a test has set; NULL: the clock of the server
--   p_service_time              the time by the clock of the service
--
-- The caller's cache, as in append_events_locked:
--   p_stream_head, p_stream_no  version and number of the stream; NULL if unknown
--   p_last_generation .. p_open_from
--
-- The result:
--   stream_no                   the number of the stream; NULL if it is new and was not written
--   generation .. epoch         as in append_events_locked
--   version                     the version of the event, whose position is log_position and whose time is log_time;
--                               NULL: nothing was written
-- Raises AN002 and AN003, as append_events_locked does.
--
-- Locks and plans: as in append_events_locked.
-- Lines with a marker are patched by the broken builds of annals-torture.
CREATE OR REPLACE FUNCTION append_event_locked(
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
    p_service_time timestamptz,
    p_stream_head integer,
    p_stream_no bigint,
    p_last_generation bigint,
    p_log_position bigint,
    p_log_time timestamptz,
    p_open_from timestamptz,
    OUT stream_no bigint,
    OUT generation bigint,
    OUT log_position bigint,
    OUT log_time timestamptz,
    OUT open_from timestamptz,
    OUT epoch integer,
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

    v_is_known boolean;
    v_head     integer;
    v_now      timestamptz;
    v_bound    bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_event needs READ COMMITTED: an older snapshot would not see the last append';
    END IF;
    LOCK TABLE append_lock IN EXCLUSIVE MODE;  -- marker: append-lock

    -- Find the end of the log. The caller's cache is valid if this generation directly follows the cached one.
    generation := nextval('append_generation');
    v_bound := coalesce(pg_sequence_last_value('position_bound'), 0);
    IF generation = p_last_generation + 1  -- marker: cache-check
       AND p_log_position <= v_bound
       AND p_stream_head <= p_log_position IS NOT FALSE
       AND p_log_time <= clock_timestamp() + interval '1 day' IS NOT FALSE THEN
        stream_no := p_stream_no;
        log_position := p_log_position;
        log_time := p_log_time;
        open_from := p_open_from;
    ELSE
        SELECT l.log_position, l.log_time, l.open_from
          INTO log_position, log_time, open_from
          FROM end_of_log() AS l;  -- marker: cache-miss
        epoch := (SELECT max(o.epoch) FROM epochs o);
    END IF;

    -- Read the stream and its head, and whether the event id is known.
    IF stream_no IS NOT NULL THEN
        v_head := p_stream_head;
        -- This is an IF and not an AND: PL/pgSQL evaluates an expression that contains a query as a statement, even if
        -- the result is not needed.
        IF p_id_is_new THEN
            v_is_known := false;
        ELSE
            v_is_known := EXISTS (SELECT FROM event_ids k WHERE k.event_id = p_event_id);  -- marker: known-id
        END IF;
    ELSE
        SELECT NOT p_id_is_new AND EXISTS (  -- marker: known-ids
                   SELECT FROM event_ids k WHERE k.event_id = p_event_id),
               s.stream_no,
               coalesce(s.version, 0)
          INTO v_is_known, stream_no, v_head
          FROM (VALUES (1)) AS always
          LEFT JOIN streams s
            ON s.aggregate_type = p_aggregate_type
           AND s.aggregate_id = p_aggregate_id;
        -- The head of an existing stream, as in stream_head.
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

    -- Decide.  -- marker: decide
    IF v_is_known
       OR p_position_floor > log_position
       OR NOT (p_expected = v_head
               OR p_expected = any_version
               OR (p_expected = exists_version AND v_head > 0)) THEN
        RETURN;
    END IF;

    version := v_head + 1;
    log_position := log_position + 1;  -- marker: first-position
    IF log_position > v_bound THEN
        PERFORM setval('position_bound', log_position + 10000);
    END IF;
    IF p_now > clock_timestamp() + interval '1 day' AND NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
        RAISE EXCEPTION 'only the owner may set a clock that is more than a day ahead'
            USING ERRCODE = 'AN003';
    END IF;
    v_now := coalesce(p_now, clock_timestamp());
    IF v_now > p_service_time + interval '1 day' AND v_now > coalesce(log_time, '-infinity') THEN
        RAISE EXCEPTION 'the clock of PostgreSQL is more than a day ahead of the clock of the service'
            USING ERRCODE = 'AN002';
    END IF;
    log_time := greatest(v_now, log_time);
    INSERT INTO events (
           event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata,
           occurred_at, correlation_id, causation_id, global_position)
    VALUES (p_event_id, p_aggregate_type, p_aggregate_id, version, p_event_type, p_event_data, p_metadata,
            log_time, p_correlation_id, p_causation_id, log_position);  -- marker: insert-events
    IF stream_no IS NULL THEN
        stream_no := nextval('streams_stream_no_seq');
        INSERT INTO streams (stream_no, aggregate_type, aggregate_id, first_occurred_at)
        VALUES (stream_no, p_aggregate_type, p_aggregate_id, log_time);  -- marker: insert-streams
    END IF;
    INSERT INTO event_ids (event_id, stream_no, version, global_position, occurred_at, content_hash)
    VALUES (p_event_id, stream_no, version, log_position, log_time, event_content_hash(
            p_event_type, p_event_data, p_metadata, p_correlation_id, p_causation_id));  -- marker: insert-event-ids
END
$$;

REVOKE ALL ON FUNCTION append_event_locked FROM PUBLIC;
