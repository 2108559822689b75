-- The append: many requests, decided one after the other, in one commit.

-- What must be equal for a retry to be the same event; the same for equal JSONB values (1.0 and 1).
CREATE FUNCTION event_content_hash(
    p_event_type text, p_event_data jsonb, p_metadata jsonb, p_correlation_id uuid, p_causation_id uuid
) RETURNS bigint
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT hash_record_extended(ROW(p_event_type, p_event_data, p_metadata, p_correlation_id, p_causation_id), 0)
$$;

-- Whoever moves the end of the log, or may move it, takes a turn, under the append lock. A session whose own turn was the last
-- one still knows where the log ends, and where the streams that it has seen stand. It need not look: that would cost more than
-- to write an event. A turn that is taken and rolled back is taken all the same, and who did it does not go by what it knew.
-- CACHE 1: a session that sets turns aside would find its own last one beside the next, whoever had one in between.
CREATE SEQUENCE append_turns AS bigint CACHE 1;

-- Where the log ends: its last position and time, and the start of the oldest month that is not rolled up. The month of the
-- last event never is, so the open months hold it. They are found first: a parameter tells the executor which months to
-- leave closed, a join would open them all.
--
-- Locks: the caller holds the append lock. Plans: those of the caller.
CREATE FUNCTION end_of_log(
    OUT log_position bigint,
    OUT log_time timestamptz,
    OUT open_from timestamptz
)
LANGUAGE plpgsql
VOLATILE
AS $$
DECLARE
    v_rolled_up_to bigint;  -- or the end of the last epoch
BEGIN
    SELECT (SELECT p.starts_at FROM partitions p WHERE p.rolled_up_at IS NULL ORDER BY p.starts_at LIMIT 1),
           greatest(
               coalesce((SELECT p.last_position FROM partitions p WHERE p.rolled_up_at IS NOT NULL
                          ORDER BY p.starts_at DESC LIMIT 1), 0),
               (SELECT o.first_position - 1 FROM epochs o ORDER BY o.epoch DESC LIMIT 1))
      INTO open_from, v_rolled_up_to;
    SELECT e.global_position, e.occurred_at
      INTO log_position, log_time
      FROM events e
     WHERE e.occurred_at >= open_from
     ORDER BY e.global_position DESC
     LIMIT 1;
    log_position := greatest(log_position, v_rolled_up_to);
END
$$;

-- Decides and writes a batch, under the append lock; called by the procedure append_events alone, which commits.
--
-- A batch is a list of requests; a request is a list of appends, all or nothing; an append is a list of events for
-- one stream. Each level is told in arrays, in order. The caller makes sure that no event id stands twice in a batch
-- and no stream twice in a request.
--
--   p_stream_types, p_stream_ids   the distinct streams of the batch, in the order in which appends name them first
--   p_stream_offsets               how many events of the batch come before the stream's first one
--   p_request_appends              how many appends each request has
--   p_append_streams               index of the stream, from 1
--   p_append_expected              expected version: n >= 0 exactly n, -1 any, -2 the stream exists
--   p_append_offsets               how many events of the batch come before the append
--   p_append_earlier               how many of them are for the same stream
--   p_event_appends                index of the append, from 1
--   p_event_offsets                how many events of the append come before the event
--   p_event_ids .. p_causation_ids the events; NULL instead of an array whose elements all are
--   p_event_times                  only for an import: when each event occurred; NULL: now
--   p_ids_are_new                  the caller has just made all event ids: none of them is known
--   p_position_floor               highest position that the caller has seen: never given out again
--   p_now                          a clock set by a test; NULL: the server's
--   p_stream_heads, stream_nos     versions and numbers of the streams, as far as an earlier append over this connection told
--                                  them and every turn since was its own; NULL where unknown; NULL if none is known
--   turn .. open_from              what the last append over this connection answered; NULL if there was none, or it failed
--
--   stream_nos                     all of them; one of a new stream that was not written means nothing
--   turn                           the turn that this append was
--   log_position, log_time         where the log ends now
--   open_from                      start of the oldest month that is not rolled up; an older one does no harm
--   request_outcomes               0 written, 1 replayed, 2 version conflict, 3 event id reused, 4 partly known
--   append_first_versions          version of the first event written, else 0
--   append_first_positions         its position, else 0
--   append_current_versions        version of the stream when the request was decided
--   event_versions .. event_times  where known event ids stand, NULL where unknown; NULL if none is known
--   written_at                     occurred_at of what was written (not for an import)
--
-- Locks: the append lock (events, 1) first, held to the commit. PostgreSQL makes a commit visible before it
-- releases its locks, so positions become visible in their order. The function is VOLATILE and the transaction
-- READ COMMITTED, so every statement after the lock sees all that was committed before it.
-- The plans are pinned: made while the tables are empty, they must still be right when the tables are not.
CREATE FUNCTION append_events_locked(
    p_stream_types text[],
    p_stream_ids text[],
    p_stream_offsets integer[],
    p_request_appends integer[],
    p_append_streams integer[],
    p_append_expected integer[],
    p_append_offsets integer[],
    p_append_earlier integer[],
    p_event_appends integer[],
    p_event_offsets integer[],
    p_event_ids uuid[],
    p_event_types text[],
    p_event_data jsonb[],
    p_metadata jsonb[],
    p_correlation_ids uuid[],
    p_causation_ids uuid[],
    p_event_times timestamptz[],
    p_ids_are_new boolean,
    p_position_floor bigint,
    p_now timestamptz,
    p_stream_heads integer[],
    INOUT stream_nos bigint[],
    INOUT turn bigint,
    INOUT log_position bigint,
    INOUT log_time timestamptz,
    INOUT open_from timestamptz,
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
    v_events   integer := cardinality(p_event_ids);

    v_turn          bigint;
    v_heads         integer[];
    v_rolled_up     integer[];  -- the version that was rolled up; NULL: the stream is new, or known already
    v_plain         boolean;
    v_any_new       boolean;
    v_any_found     boolean;
    v_any_known     boolean;
    v_known_streams bigint[];
    v_known_equal   boolean[];
    v_new_times     timestamptz[];  -- of each new stream, the time of its first event; NULL: of an old one
    v_written_times timestamptz[];  -- the same of those that are written

    v_append integer := 0;  -- the last append of the requests before this one
    v_event  integer := 0;  -- the last event of the requests before this one
    v_last_append integer;
    v_last_event  integer;
    v_outcome  integer;
    v_known    integer;
    v_expected integer;
    v_head     integer;
    v_stream   integer;
    v_count    integer;
    v_of       integer;
    v_first    integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_events needs READ COMMITTED: an older snapshot would not see the last append';
    END IF;
    PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);

    -- 1. Where the log stands.
    v_turn := nextval('append_turns');
    IF v_turn IS DISTINCT FROM turn + 1 THEN
        SELECT l.log_position, l.log_time, l.open_from
          INTO log_position, log_time, open_from
          FROM end_of_log() AS l;
        stream_nos := NULL;
    END IF;
    turn := v_turn;
    IF p_position_floor > log_position THEN
        -- The caller has seen positions that were lost since. Only an epoch may begin with a gap.
        IF log_position >= (SELECT o.first_position FROM epochs o ORDER BY o.epoch DESC LIMIT 1) THEN
            PERFORM begin_epoch(format('the log ends at %s, and a client has seen position %s', log_position, p_position_floor));
        END IF;
        log_position := p_position_floor;
    END IF;
    written_at := greatest(coalesce(p_now, clock_timestamp()), log_time);

    -- 2. The streams: their numbers, and their heads: what is known, 0 for a new one, else what is found below. Whether an event
    --    id is known at all. And what would be written, and whether every version is right, as long as each append is the only
    --    one to its stream and no head has to be found.
    SELECT array_agg(h.stream_no),
           array_agg(h.head),
           array_agg(h.rolled_up),
           array_agg(h.head),
           array_agg(h.head + 1),
           array_agg(log_position + h.events_before + 1),
           array_agg(h.new_at),
           bool_or(h.new_at IS NOT NULL),
           bool_or(h.rolled_up IS NOT NULL),
           bool_and(CASE h.expected
                        WHEN any_version THEN true
                        WHEN exists_version THEN h.head > 0
                        ELSE h.expected = h.head
                    END),
           NOT p_ids_are_new AND EXISTS (
               SELECT FROM unnest(p_event_ids) AS i (event_id) JOIN event_ids k ON k.event_id = i.event_id)
      INTO stream_nos, v_heads, v_rolled_up, append_current_versions, append_first_versions, append_first_positions,
           v_new_times, v_any_new, v_any_found, v_plain, v_any_known
      FROM (SELECT coalesce(t.stream_no, s.stream_no, nextval('streams_stream_no_seq')) AS stream_no,
                   CASE WHEN t.stream_no IS NULL THEN 0 ELSE t.head END AS head,
                   s.version AS rolled_up,
                   CASE WHEN t.stream_no IS NULL AND s.stream_no IS NULL THEN
                       coalesce(p_event_times[t.events_before + 1], written_at)
                   END AS new_at,
                   t.expected,
                   t.events_before
              FROM unnest(p_stream_types, p_stream_ids, p_append_expected, p_stream_offsets, stream_nos, p_stream_heads)
                   WITH ORDINALITY
                   AS t (aggregate_type, aggregate_id, expected, events_before, stream_no, head, n)
              LEFT JOIN streams s
                ON s.aggregate_type = CASE WHEN t.stream_no IS NULL THEN t.aggregate_type END  -- nothing is looked for by NULL
               AND s.aggregate_id = t.aggregate_id
             WHERE t.aggregate_type IS NOT NULL  -- there may be more appends than streams
             ORDER BY t.n) AS h;
    -- The head of a stream that was found: the highest version in the open months, or what was rolled up. A statement of its
    -- own, because one that names events opens its months, whether it needs them or not.
    IF v_any_found THEN
        SELECT array_agg(CASE WHEN t.rolled_up IS NULL THEN t.head ELSE greatest(
                   (SELECT e.version
                      FROM events e
                     WHERE e.aggregate_type = t.aggregate_type
                       AND e.aggregate_id = t.aggregate_id
                       AND e.occurred_at >= open_from
                       AND e.occurred_at <= log_time
                     ORDER BY e.version DESC
                     LIMIT 1),
                   t.rolled_up)
               END)
          INTO v_heads
          FROM unnest(p_stream_types, p_stream_ids, v_heads, v_rolled_up)
               AS t (aggregate_type, aggregate_id, head, rolled_up);
    END IF;
    -- And an append finds what the earlier ones to its stream have left.
    IF v_any_found OR v_appends > cardinality(p_stream_types) THEN
        SELECT array_agg(a.head),
               array_agg(a.head + 1),
               array_agg(log_position + a.events_before + 1),
               bool_and(CASE a.expected
                            WHEN any_version THEN true
                            WHEN exists_version THEN a.head > 0
                            ELSE a.expected = a.head
                        END)
          INTO append_current_versions, append_first_versions, append_first_positions, v_plain
          FROM (SELECT v_heads[t.stream] + t.earlier AS head, t.expected, t.events_before
                  FROM unnest(p_append_streams, p_append_expected, p_append_earlier, p_append_offsets)
                       AS t (stream, expected, earlier, events_before)) AS a;
    END IF;

    -- 3. Decide. Nearly every batch is plain: no event is known, every version is right, no time goes back. Then all of it is
    --    written.
    v_plain := v_plain AND NOT v_any_known;
    IF v_plain AND p_event_times IS NOT NULL THEN
        SELECT bool_and(t.occurred_at >= t.before) IS NOT FALSE
          INTO v_plain
          FROM (SELECT e.occurred_at, lag(e.occurred_at, 1, log_time) OVER (ORDER BY e.n)
                  FROM unnest(p_event_times) WITH ORDINALITY AS e (occurred_at, n)) AS t (occurred_at, before);
    END IF;
    IF v_plain THEN
        request_outcomes := array_fill(written, ARRAY[v_requests]);
        v_written_times := v_new_times;
        log_position := log_position + v_events;
        log_time := coalesce(p_event_times[v_events], written_at);
        v_requests := 0;  -- nothing is left to decide
    ELSE
        request_outcomes        := array_fill(written, ARRAY[v_requests]);
        append_first_versions   := array_fill(0, ARRAY[v_appends]);
        append_first_positions  := array_fill(0::bigint, ARRAY[v_appends]);
        append_current_versions := array_fill(0, ARRAY[v_appends]);
        v_written_times         := array_fill(NULL::timestamptz, ARRAY[cardinality(p_stream_types)]);
    END IF;

    -- Known event ids: where they stand, and whether they say the same. An archived event is compared by its hash, any
    -- other by its content.
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

    -- Every request in order. A replay is seen before the version is looked at.
    FOR v_request IN 1 .. v_requests LOOP
        v_last_append := v_append + p_request_appends[v_request];
        v_last_event := coalesce(p_append_offsets[v_last_append + 1], v_events);
        v_outcome := written;
        v_known := 0;

        FOR a IN v_append + 1 .. v_last_append LOOP
            v_head := v_heads[p_append_streams[a]];
            v_expected := p_append_expected[a];
            append_current_versions[a] := v_head;
            IF (v_expected >= 0 AND v_expected <> v_head) OR (v_expected = exists_version AND v_head = 0) THEN
                v_outcome := version_conflict;
            END IF;
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
                v_of := p_event_appends[e];
                v_first := p_append_offsets[v_of] + 1;
                IF v_known_streams[e] <> stream_nos[p_append_streams[v_of]] OR NOT v_known_equal[e] THEN
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
                v_first := p_append_offsets[a] + 1;
                v_count := coalesce(p_append_offsets[a + 1], v_events) - p_append_offsets[a];
                append_first_versions[a] := v_heads[v_stream] + 1;
                append_first_positions[a] := log_position + 1;
                IF v_heads[v_stream] = 0 AND v_new_times[v_stream] IS NOT NULL THEN
                    v_written_times[v_stream] := coalesce(p_event_times[v_first], written_at);
                END IF;
                v_heads[v_stream] := v_heads[v_stream] + v_count;
                log_position := log_position + v_count;
            END LOOP;
            FOR e IN v_event + 1 .. v_last_event LOOP
                IF p_event_times[e] < log_time THEN
                    RAISE EXCEPTION 'an event of % is older than the end of the log, %', p_event_times[e], log_time
                        USING ERRCODE = 'AN001';
                END IF;
                log_time := coalesce(p_event_times[e], written_at);
            END LOOP;
        END IF;
        v_append := v_last_append;
        v_event := v_last_event;
    END LOOP;

    -- 4. Write what was accepted, in the order of the batch. Lists of unnest() beside each other are read in step, and without
    --    a copy of them all, as there would be one in FROM.
    INSERT INTO events (
           event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata,
           occurred_at, correlation_id, causation_id, global_position)
    SELECT i.event_id,
           p_stream_types[p_append_streams[i.append]],
           p_stream_ids[p_append_streams[i.append]],
           append_first_versions[i.append] + i.n,
           i.event_type,
           i.event_data,
           i.metadata,
           coalesce(i.occurred_at, written_at),
           i.correlation_id,
           i.causation_id,
           append_first_positions[i.append] + i.n
      FROM (SELECT unnest(p_event_ids), unnest(p_event_types), unnest(p_event_data), unnest(p_metadata),
                   unnest(p_correlation_ids), unnest(p_causation_ids), unnest(p_event_times),
                   unnest(p_event_appends), unnest(p_event_offsets))
           AS i (event_id, event_type, event_data, metadata, correlation_id, causation_id, occurred_at, append, n)
     WHERE append_first_versions[i.append] > 0;

    IF v_any_new THEN
        INSERT INTO streams (stream_no, aggregate_type, aggregate_id, first_occurred_at)
        SELECT t.stream_no, t.aggregate_type, t.aggregate_id, t.first_occurred_at
          FROM (SELECT unnest(stream_nos), unnest(p_stream_types), unnest(p_stream_ids), unnest(v_written_times))
               AS t (stream_no, aggregate_type, aggregate_id, first_occurred_at)
         WHERE t.first_occurred_at IS NOT NULL;
    END IF;

    INSERT INTO event_ids (event_id, stream_no, version, global_position, occurred_at, content_hash)
    SELECT i.event_id,
           stream_nos[p_append_streams[i.append]],
           append_first_versions[i.append] + i.n,
           append_first_positions[i.append] + i.n,
           coalesce(i.occurred_at, written_at),
           event_content_hash(i.event_type, i.event_data, i.metadata, i.correlation_id, i.causation_id)
      FROM (SELECT unnest(p_event_ids), unnest(p_event_types), unnest(p_event_data), unnest(p_metadata),
                   unnest(p_correlation_ids), unnest(p_causation_ids), unnest(p_event_times),
                   unnest(p_event_appends), unnest(p_event_offsets))
           AS i (event_id, event_type, event_data, metadata, correlation_id, causation_id, occurred_at, append, n)
     WHERE append_first_versions[i.append] > 0;
END
$$;

-- The one way into the log. Invoker's rights, because a SECURITY DEFINER procedure may not commit. The COMMIT in here
-- means that no round trip happens while the append lock is held, and that PostgreSQL refuses the call (2D000) inside
-- a transaction that somebody left open. Parameters and answers are those of append_events_locked.
CREATE PROCEDURE append_events(
    p_stream_types text[],
    p_stream_ids text[],
    p_stream_offsets integer[],
    p_request_appends integer[],
    p_append_streams integer[],
    p_append_expected integer[],
    p_append_offsets integer[],
    p_append_earlier integer[],
    p_event_appends integer[],
    p_event_offsets integer[],
    p_event_ids uuid[],
    p_event_types text[],
    p_event_data jsonb[],
    p_metadata jsonb[],
    p_correlation_ids uuid[],
    p_causation_ids uuid[],
    p_event_times timestamptz[],
    p_ids_are_new boolean,
    p_position_floor bigint,
    p_now timestamptz,
    p_stream_heads integer[],
    INOUT stream_nos bigint[],
    INOUT turn bigint,
    INOUT log_position bigint,
    INOUT log_time timestamptz,
    INOUT open_from timestamptz,
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
AS $$
BEGIN
    SELECT d.*
      INTO stream_nos, turn, log_position, log_time, open_from,
           request_outcomes, append_first_versions, append_first_positions, append_current_versions,
           event_versions, event_positions, event_times, written_at
      FROM append_events_locked(
               p_stream_types, p_stream_ids, p_stream_offsets,
               p_request_appends, p_append_streams, p_append_expected, p_append_offsets, p_append_earlier,
               p_event_appends, p_event_offsets,
               p_event_ids, p_event_types, p_event_data, p_metadata, p_correlation_ids, p_causation_ids,
               p_event_times, p_ids_are_new, p_position_floor, p_now, p_stream_heads, stream_nos,
               turn, log_position, log_time, open_from) AS d;
    COMMIT;
END
$$;
