-- The append, faster again: batches are decided as a whole whenever nothing in them needs a second look, and a single event
-- has a procedure of its own without arrays. docs/PERFORMANCE.md has what each change brought.
--
-- migrations/0003_append.sql explains parameters, answers and locks of append_events_locked.

SET LOCAL lock_timeout = '3s';

CREATE OR REPLACE FUNCTION append_events_locked(
    p_stream_types text[],
    p_stream_ids text[],
    p_request_appends integer[],
    p_append_streams integer[],
    p_append_expected integer[],
    p_append_events integer[],
    p_event_ids uuid[],
    p_event_types text[],
    p_event_data jsonb[],
    p_metadata jsonb[],
    p_correlation_ids uuid[],
    p_causation_ids uuid[],
    p_event_times timestamptz[],
    p_position_floor bigint,
    p_now timestamptz,
    OUT request_outcomes integer[],
    OUT append_first_versions integer[],
    OUT append_first_positions bigint[],
    OUT append_current_versions integer[],
    OUT event_versions integer[],
    OUT event_positions bigint[],
    OUT event_times timestamptz[],
    OUT written_at timestamptz
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
DECLARE
    written           CONSTANT integer := 0;
    replayed          CONSTANT integer := 1;
    version_conflict  CONSTANT integer := 2;
    id_reused         CONSTANT integer := 3;
    partly_known      CONSTANT integer := 4;
    any_version       CONSTANT integer := -1;
    exists_version    CONSTANT integer := -2;

    v_requests integer := cardinality(p_request_appends);
    v_appends  integer := cardinality(p_append_streams);

    v_open_from     timestamptz;
    v_rolled_up_to  bigint;  -- or the end of the last epoch
    v_position      bigint;
    v_last_time     timestamptz;
    v_stream_nos    bigint[];
    v_heads         integer[];
    v_any_known     boolean;
    v_known_streams bigint[];
    v_known_equal   boolean[];

    v_new_streams       boolean := false;
    v_new_stream_times  timestamptz[] := array_fill(NULL::timestamptz, ARRAY[cardinality(p_stream_ids)]);
    v_append_of_event   integer[];
    v_append_offsets    integer[] := array_fill(0, ARRAY[v_appends]);

    v_append integer := 0;  -- the last append of the requests before this one
    v_event  integer := 0;  -- the last event of the requests before this one
    v_last_append integer;
    v_last_event  integer;
    v_outcome  integer;
    v_known    integer;
    v_expected integer;
    v_head     integer;
    v_stream   integer;
    v_of       integer;
    v_first    integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_events needs READ COMMITTED: an older snapshot would not see the last append';
    END IF;
    PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);

    -- 1. Where the log stands. The month of the last event is never rolled up, so the open months hold it. They are found
    --    first: a parameter tells the executor which months to leave closed, a join would open them all.
    SELECT (SELECT p.starts_at FROM partitions p WHERE p.rolled_up_at IS NULL ORDER BY p.starts_at LIMIT 1),
           greatest(
               coalesce((SELECT p.last_position FROM partitions p WHERE p.rolled_up_at IS NOT NULL
                          ORDER BY p.starts_at DESC LIMIT 1), 0),
               (SELECT o.first_position - 1 FROM epochs o ORDER BY o.epoch DESC LIMIT 1))
      INTO v_open_from, v_rolled_up_to;
    SELECT e.global_position, e.occurred_at
      INTO v_position, v_last_time
      FROM events e
     WHERE e.occurred_at >= v_open_from
     ORDER BY e.global_position DESC
     LIMIT 1;
    v_position := greatest(v_position, v_rolled_up_to);
    IF p_position_floor > v_position THEN
        -- The caller has seen positions that were lost since. Only an epoch may begin with a gap.
        IF v_position >= (SELECT o.first_position FROM epochs o ORDER BY o.epoch DESC LIMIT 1) THEN
            PERFORM begin_epoch(format('the log ends at %s, and a client has seen position %s', v_position, p_position_floor));
        END IF;
        v_position := p_position_floor;
    END IF;
    written_at := greatest(coalesce(p_now, clock_timestamp()), v_last_time);

    -- 2. The heads of the streams: the highest version in the open months, else what was rolled up. And whether an event
    --    id is known at all.
    SELECT array_agg(coalesce(s.stream_no, 0) ORDER BY t.n),
           array_agg(
               CASE WHEN s.stream_no IS NULL THEN 0 ELSE coalesce(
                   (SELECT e.version
                      FROM events e
                     WHERE e.aggregate_type = t.aggregate_type
                       AND e.aggregate_id = t.aggregate_id
                       AND e.occurred_at >= v_open_from
                       AND e.occurred_at <= v_last_time
                     ORDER BY e.version DESC
                     LIMIT 1),
                   s.version)
               END ORDER BY t.n),
           EXISTS (SELECT FROM unnest(p_event_ids) AS i (event_id) JOIN event_ids k ON k.event_id = i.event_id)
      INTO v_stream_nos, v_heads, v_any_known
      FROM unnest(p_stream_types, p_stream_ids) WITH ORDINALITY AS t (aggregate_type, aggregate_id, n)
      LEFT JOIN streams s
        ON s.aggregate_type = t.aggregate_type
       AND s.aggregate_id = t.aggregate_id;

    -- 3. Known event ids: where they stand, and whether they say the same. An archived event is compared by its
    --    hash, any other by its content.
    IF v_any_known THEN
        SELECT array_agg(k.stream_no ORDER BY i.n),
               array_agg(k.version ORDER BY i.n),
               array_agg(k.global_position ORDER BY i.n),
               array_agg(k.occurred_at ORDER BY i.n),
               array_agg(coalesce(
                   (SELECT (e.event_type, e.event_data, e.metadata, e.correlation_id, e.causation_id)
                           IS NOT DISTINCT FROM
                           (i.event_type, i.event_data, i.metadata, i.correlation_id, i.causation_id)
                      FROM events e
                     WHERE e.occurred_at = k.occurred_at
                       AND e.global_position = k.global_position),
                   k.content_hash = event_content_hash(
                       i.event_type, i.event_data, i.metadata, i.correlation_id, i.causation_id)
                   ) ORDER BY i.n)
          INTO v_known_streams, event_versions, event_positions, event_times, v_known_equal
          FROM unnest(p_event_ids, p_event_types, p_event_data, p_metadata, p_correlation_ids, p_causation_ids)
               WITH ORDINALITY
               AS i (event_id, event_type, event_data, metadata, correlation_id, causation_id, n)
          LEFT JOIN event_ids k
            ON k.event_id = i.event_id;
    END IF;

    -- 4. Decide every request, in order. A replay is seen before the version is looked at.
    request_outcomes        := array_fill(written, ARRAY[v_requests]);
    append_first_versions   := array_fill(0, ARRAY[v_appends]);
    append_first_positions  := array_fill(0::bigint, ARRAY[v_appends]);
    append_current_versions := array_fill(0, ARRAY[v_appends]);
    v_append_of_event       := array_fill(0, ARRAY[cardinality(p_event_ids)]);

    -- Nearly every batch is plain: no stream stands in it twice, no event is known, every version is right, no time goes back.
    -- Then all of it is written, and one by one the decisions would take a sixth of the whole call.
    IF NOT v_any_known
       AND (SELECT bool_and(
                       a.stream = a.n
                       AND CASE a.expected
                               WHEN any_version THEN true
                               WHEN exists_version THEN a.head > 0
                               ELSE a.expected = a.head
                           END)
              FROM unnest(p_append_streams, p_append_expected, v_heads)
                   WITH ORDINALITY AS a (stream, expected, head, n))
       AND (p_event_times IS NULL
            OR (SELECT bool_and(t.occurred_at >= t.before)
                  FROM (SELECT e.occurred_at, lag(e.occurred_at, 1, v_last_time) OVER (ORDER BY e.n)
                          FROM unnest(p_event_times) WITH ORDINALITY AS e (occurred_at, n)) AS t (occurred_at, before)
               ) IS NOT FALSE) THEN
        append_current_versions := v_heads;
        SELECT array_agg(a.head + 1 ORDER BY a.n),
               array_agg(v_position + a.before + 1 ORDER BY a.n),
               array_agg(a.before ORDER BY a.n),
               bool_or(a.stream_no = 0),
               array_agg(CASE WHEN a.stream_no = 0 THEN coalesce(p_event_times[a.before + 1], written_at) END ORDER BY a.n),
               array_agg(CASE WHEN a.stream_no = 0 THEN nextval('streams_stream_no_seq') ELSE a.stream_no END ORDER BY a.n)
          INTO append_first_versions, append_first_positions, v_append_offsets,
               v_new_streams, v_new_stream_times, v_stream_nos
          FROM (SELECT u.n, u.head, u.stream_no, (sum(u.events) OVER (ORDER BY u.n) - u.events)::integer
                  FROM unnest(v_heads, v_stream_nos, p_append_events) WITH ORDINALITY AS u (head, stream_no, events, n)
               ) AS a (n, head, stream_no, before);
        SELECT array_agg(a.n ORDER BY a.n)
          INTO v_append_of_event
          FROM unnest(p_append_events) WITH ORDINALITY AS a (events, n)
         CROSS JOIN generate_series(1, a.events);
        v_requests := 0;  -- nothing is left to decide
    END IF;

    FOR v_request IN 1 .. v_requests LOOP
        v_last_append := v_append + p_request_appends[v_request];
        v_last_event := v_event;
        v_outcome := written;
        v_known := 0;

        FOR a IN v_append + 1 .. v_last_append LOOP
            v_stream := p_append_streams[a];
            v_head := v_heads[v_stream];
            v_expected := p_append_expected[a];
            v_append_offsets[a] := v_last_event;
            append_current_versions[a] := v_head;
            IF (v_expected >= 0 AND v_expected <> v_head) OR (v_expected = exists_version AND v_head = 0) THEN
                v_outcome := version_conflict;
            END IF;
            FOR e IN v_last_event + 1 .. v_last_event + p_append_events[a] LOOP
                v_append_of_event[e] := a;
            END LOOP;
            v_last_event := v_last_event + p_append_events[a];
        END LOOP;

        IF v_any_known THEN
            FOR e IN v_event + 1 .. v_last_event LOOP
                v_known := v_known + (event_versions[e] IS NOT NULL)::integer;
            END LOOP;
        END IF;
        IF v_known > 0 THEN
            v_outcome := CASE WHEN v_known = v_last_event - v_event THEN replayed ELSE partly_known END;
            FOR e IN v_event + 1 .. v_last_event LOOP
                CONTINUE WHEN event_versions[e] IS NULL;
                v_of := v_append_of_event[e];
                v_first := v_append_offsets[v_of] + 1;
                IF v_known_streams[e] <> v_stream_nos[p_append_streams[v_of]] OR NOT v_known_equal[e] THEN
                    v_outcome := id_reused;
                    EXIT;
                ELSIF event_versions[e] IS DISTINCT FROM event_versions[v_first] + e - v_first THEN
                    v_outcome := partly_known;
                END IF;
            END LOOP;
        END IF;

        request_outcomes[v_request] := v_outcome;
        IF v_outcome = written THEN
            FOR a IN v_append + 1 .. v_last_append LOOP
                v_stream := p_append_streams[a];
                append_first_versions[a] := v_heads[v_stream] + 1;
                append_first_positions[a] := v_position + 1;
                v_heads[v_stream] := v_heads[v_stream] + p_append_events[a];
                v_position := v_position + p_append_events[a];
                IF v_stream_nos[v_stream] = 0 THEN
                    v_new_streams := true;
                    v_stream_nos[v_stream] := nextval('streams_stream_no_seq');
                    v_new_stream_times[v_stream] :=
                        coalesce(p_event_times[v_append_offsets[a] + 1], written_at);
                END IF;
            END LOOP;
            IF p_event_times IS NOT NULL THEN
                FOR e IN v_event + 1 .. v_last_event LOOP
                    IF p_event_times[e] < v_last_time THEN
                        RAISE EXCEPTION 'an event of % is older than the end of the log, %', p_event_times[e], v_last_time
                            USING ERRCODE = 'AN001';
                    END IF;
                    v_last_time := p_event_times[e];
                END LOOP;
            END IF;
        END IF;
        v_append := v_last_append;
        v_event := v_last_event;
    END LOOP;

    -- 5. Write what was accepted, in the order of the batch.
    INSERT INTO events (
           event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata,
           occurred_at, correlation_id, causation_id, global_position)
    SELECT i.event_id,
           p_stream_types[p_append_streams[i.append]],
           p_stream_ids[p_append_streams[i.append]],
           append_first_versions[i.append] + (i.n - 1 - v_append_offsets[i.append])::integer,
           i.event_type,
           i.event_data,
           i.metadata,
           coalesce(i.occurred_at, written_at),
           i.correlation_id,
           i.causation_id,
           append_first_positions[i.append] + (i.n - 1 - v_append_offsets[i.append])
      FROM unnest(p_event_ids, p_event_types, p_event_data, p_metadata, p_correlation_ids, p_causation_ids,
                  p_event_times, v_append_of_event)
           WITH ORDINALITY
           AS i (event_id, event_type, event_data, metadata, correlation_id, causation_id, occurred_at, append, n)
     WHERE append_first_versions[i.append] > 0;

    IF v_new_streams THEN
        INSERT INTO streams (stream_no, aggregate_type, aggregate_id, first_occurred_at)
        SELECT t.stream_no, t.aggregate_type, t.aggregate_id, t.first_occurred_at
          FROM unnest(v_stream_nos, p_stream_types, p_stream_ids, v_new_stream_times)
               AS t (stream_no, aggregate_type, aggregate_id, first_occurred_at)
         WHERE t.first_occurred_at IS NOT NULL;
    END IF;

    INSERT INTO event_ids (event_id, stream_no, version, global_position, occurred_at, content_hash)
    SELECT i.event_id,
           v_stream_nos[p_append_streams[i.append]],
           append_first_versions[i.append] + (i.n - 1 - v_append_offsets[i.append])::integer,
           append_first_positions[i.append] + (i.n - 1 - v_append_offsets[i.append]),
           coalesce(i.occurred_at, written_at),
           event_content_hash(i.event_type, i.event_data, i.metadata, i.correlation_id, i.causation_id)
      FROM unnest(p_event_ids, p_event_types, p_event_data, p_metadata, p_correlation_ids, p_causation_ids,
                  p_event_times, v_append_of_event)
           WITH ORDINALITY
           AS i (event_id, event_type, event_data, metadata, correlation_id, causation_id, occurred_at, append, n)
     WHERE append_first_versions[i.append] > 0;
END
$$;

-- Decides and writes a single event, if that is plain: no known id, the right version, no lost positions. Otherwise it does
-- nothing and answers NULL, and append_events has the whole decision. Called by the procedure append_event alone.
--
--   p_expected          expected version: n >= 0 exactly n, -1 any, -2 the stream exists
--   p_position_floor    highest position that the caller has seen
--   p_now               a clock set by a test; NULL: the server's
--   version, global_position, occurred_at    of what was written; NULL: nothing was
--
-- Locks and plans: as in append_events_locked.
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
    p_position_floor bigint,
    p_now timestamptz,
    OUT version integer,
    OUT global_position bigint,
    OUT occurred_at timestamptz
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

    v_open_from    timestamptz;
    v_rolled_up_to bigint;  -- or the end of the last epoch
    v_position     bigint;
    v_time         timestamptz;
    v_known        boolean;
    v_stream_no    bigint;
    v_head         integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_event needs READ COMMITTED: an older snapshot would not see the last append';
    END IF;
    PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);

    -- Where the log stands.
    SELECT (SELECT p.starts_at FROM partitions p WHERE p.rolled_up_at IS NULL ORDER BY p.starts_at LIMIT 1),
           greatest(
               coalesce((SELECT p.last_position FROM partitions p WHERE p.rolled_up_at IS NOT NULL
                          ORDER BY p.starts_at DESC LIMIT 1), 0),
               (SELECT o.first_position - 1 FROM epochs o ORDER BY o.epoch DESC LIMIT 1))
      INTO v_open_from, v_rolled_up_to;
    SELECT e.global_position, e.occurred_at
      INTO v_position, v_time
      FROM events e
     WHERE e.occurred_at >= v_open_from
     ORDER BY e.global_position DESC
     LIMIT 1;
    v_position := greatest(v_position, v_rolled_up_to);

    -- The stream, its head, and whether the id is known.
    SELECT EXISTS (SELECT FROM event_ids k WHERE k.event_id = p_event_id),
           s.stream_no,
           coalesce(s.version, 0)
      INTO v_known, v_stream_no, v_head
      FROM (VALUES (1)) AS always
      LEFT JOIN streams s
        ON s.aggregate_type = p_aggregate_type
       AND s.aggregate_id = p_aggregate_id;
    IF v_stream_no IS NOT NULL THEN
        v_head := coalesce(
            (SELECT e.version
               FROM events e
              WHERE e.aggregate_type = p_aggregate_type
                AND e.aggregate_id = p_aggregate_id
                AND e.occurred_at >= v_open_from
                AND e.occurred_at <= v_time
              ORDER BY e.version DESC
              LIMIT 1),
            v_head);
    END IF;

    IF v_known
       OR p_position_floor > v_position
       OR NOT (p_expected = v_head
               OR p_expected = any_version
               OR (p_expected = exists_version AND v_head > 0)) THEN
        RETURN;
    END IF;

    version := v_head + 1;
    global_position := v_position + 1;
    occurred_at := greatest(coalesce(p_now, clock_timestamp()), v_time);
    INSERT INTO events (
           event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata,
           occurred_at, correlation_id, causation_id, global_position)
    VALUES (p_event_id, p_aggregate_type, p_aggregate_id, version, p_event_type, p_event_data, p_metadata,
            occurred_at, p_correlation_id, p_causation_id, global_position);
    IF v_stream_no IS NULL THEN
        INSERT INTO streams (aggregate_type, aggregate_id, first_occurred_at)
        VALUES (p_aggregate_type, p_aggregate_id, occurred_at)
        RETURNING stream_no INTO v_stream_no;
    END IF;
    INSERT INTO event_ids (event_id, stream_no, version, global_position, occurred_at, content_hash)
    VALUES (p_event_id, v_stream_no, version, global_position, occurred_at,
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
    p_position_floor bigint,
    p_now timestamptz,
    OUT version integer,
    OUT global_position bigint,
    OUT occurred_at timestamptz
)
LANGUAGE plpgsql
AS $$
BEGIN
    SELECT d.version, d.global_position, d.occurred_at
      INTO version, global_position, occurred_at
      FROM append_event_locked(
               p_aggregate_type, p_aggregate_id, p_expected, p_event_id, p_event_type, p_event_data, p_metadata,
               p_correlation_id, p_causation_id, p_position_floor, p_now) AS d;
    COMMIT;
END
$$;

REVOKE ALL ON FUNCTION append_event_locked(
    text, text, integer, uuid, text, jsonb, jsonb, uuid, uuid, bigint, timestamptz) FROM PUBLIC;
REVOKE ALL ON PROCEDURE append_event(
    text, text, integer, uuid, text, jsonb, jsonb, uuid, uuid, bigint, timestamptz) FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT EXECUTE ON FUNCTION append_event_locked(
            text, text, integer, uuid, text, jsonb, jsonb, uuid, uuid, bigint, timestamptz) TO annals_app;
        GRANT EXECUTE ON PROCEDURE append_event(
            text, text, integer, uuid, text, jsonb, jsonb, uuid, uuid, bigint, timestamptz) TO annals_app;
    END IF;
END
$$;
