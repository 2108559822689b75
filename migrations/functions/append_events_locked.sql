-- Decides and writes a batch under the append lock. Only the procedure append_events calls it, and commits.
--
-- A batch is a list of requests. A request is a list of appends and is written as a whole or not at all. An append is a
-- list of events for one stream. Each level is passed in arrays, in order. The caller ensures that no event id occurs
-- twice in a batch and no stream twice in a request.
--
-- The batch:
--   p_stream_types, p_stream_ids    the distinct streams of the batch, in the order in which appends name them first
--   p_stream_offsets                the number of events of the batch before the stream's first one
--   p_request_appends               the number of appends of each request
--   p_append_streams                the index of each append's stream, from 1
--   p_append_expected               the expected version: n >= 0 exactly n, -1 any, -2 the stream exists
--   p_append_offsets                the number of events of the batch before the append
--   p_append_earlier                the number of those events that are for the same stream
--   p_event_appends                 the index of each event's append, from 1
--   p_event_offsets                 the number of events of the append before the event
--   p_event_ids .. p_causation_ids  the events; NULL instead of an array that has only NULLs
--   p_event_times                   only for an import: the time of each event; NULL: now
--   p_ids_are_new                   the caller generated all event ids for this call, so none of them is known
--   p_position_floor                the highest position that the caller has served: never assigned again
--   p_now                           the time of a clock that a test has set; NULL: the clock of the server
--   p_service_time                  the time by the clock of the service; NULL for an import
--
-- The caller's cache, from the last append over its connection; NULL if there was none, or if it failed:
--   p_stream_heads, p_stream_nos    versions and numbers of the streams; NULL where unknown; NULL if none is known
--   p_last_generation               the generation of that append
--   p_log_position, p_log_time      the end of the log after it
--   p_open_from                     the start of the oldest partition that was not sealed
--
-- The result:
--   stream_nos                      the numbers of all streams; the number of a new stream that was not written is void
--   generation                      the generation of this append
--   log_position, log_time          the end of the log now
--   open_from                       the start of the oldest partition that is not sealed; an older one is harmless
--   epoch                           the epoch of the log; NULL: that of the cached append
--   request_outcomes                0 written, 1 replayed, 2 version conflict, 3 event id reused, 4 partly known
--   append_first_versions           the version of the first event written, else 0
--   append_first_positions          its position, else 0
--   append_current_versions         the version of the stream when the request was decided
--   event_versions .. event_times   the places of known event ids, NULL where unknown; NULL if none is known
--   written_at                      occurred_at of the written events (not for an import)
-- Raises AN001 if an import would move the time of the log backwards, AN002 if the clock of PostgreSQL would move it
-- more than a day ahead of the clock of the service, and AN003 if a caller without the rights of the owner would move
-- the log a million positions or a day ahead.
--
-- Locks: append_lock first, in EXCLUSIVE mode, held to the commit. PostgreSQL makes a commit visible before it releases
-- its locks, so positions become visible in their order. The function is VOLATILE and the transaction READ COMMITTED,
-- so every statement after the lock sees everything that was committed before the lock was acquired.
-- Plans: pinned by the SET clauses. They are made while the tables are empty, and must be right when the tables are
-- full.
-- Lines with a marker are patched by the broken builds of annals-torture.
CREATE OR REPLACE FUNCTION append_events_locked(
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
    p_service_time timestamptz,
    p_stream_heads integer[],
    p_stream_nos bigint[],
    p_last_generation bigint,
    p_log_position bigint,
    p_log_time timestamptz,
    p_open_from timestamptz,
    OUT stream_nos bigint[],
    OUT generation bigint,
    OUT log_position bigint,
    OUT log_time timestamptz,
    OUT open_from timestamptz,
    OUT epoch integer,
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

    v_heads         integer[];
    v_sealed        integer[];    -- streams.version; NULL: the stream is new, or its head is in the caller's cache
    v_is_plain      boolean;      -- every event is written: none is known, and every version is as expected
    v_is_ahead      boolean;      -- a written event would move the time of the log too far ahead
    v_any_new       boolean;      -- a stream is new
    v_any_stored    boolean;      -- the head of a stream must be read from the tables
    v_any_known     boolean;      -- an event id is known
    v_known_streams bigint[];
    v_known_equal   boolean[];
    v_new_times     timestamptz[];  -- for each new stream, the time of its first event; NULL for an existing stream
    v_written_times timestamptz[];  -- the same for the new streams that are written

    v_append      integer := 0;  -- the last append of the requests before the current one
    v_event       integer := 0;  -- the last event of the requests before the current one
    v_last_append integer;       -- the last append of the current request
    v_last_event  integer;       -- the last event of the current request
    v_outcome     integer;
    v_known_count integer;
    v_expected    integer;
    v_head        integer;
    v_stream      integer;
    v_count       integer;
    v_event_append integer;
    v_first_event integer;
    v_bound       bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_events needs READ COMMITTED: an older snapshot would not see the last append';
    END IF;
    LOCK TABLE append_lock IN EXCLUSIVE MODE;  -- marker: append-lock

    -- 1. Find the end of the log. The caller's cache is valid if this generation directly follows the cached one.
    generation := nextval('append_generation');
    v_bound := coalesce(pg_sequence_last_value('position_bound'), 0);
    IF generation = p_last_generation + 1  -- marker: cache-check
       AND p_log_position <= v_bound
       AND p_log_position >= ALL (p_stream_heads) IS NOT FALSE
       AND p_log_time <= clock_timestamp() + interval '1 day' IS NOT FALSE THEN
        stream_nos := p_stream_nos;
        log_position := p_log_position;
        log_time := p_log_time;
        open_from := p_open_from;
    ELSE
        SELECT l.log_position, l.log_time, l.open_from
          INTO log_position, log_time, open_from
          FROM end_of_log() AS l;  -- marker: cache-miss
        epoch := (SELECT max(o.epoch) FROM epochs o);
    END IF;
    IF (p_position_floor > log_position + 1000000 OR p_now > clock_timestamp() + interval '1 day')
       AND NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
        RAISE EXCEPTION 'only the owner may move the log a million positions or a day ahead'
            USING ERRCODE = 'AN003';
    END IF;
    IF p_event_times IS NOT NULL AND NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
        RAISE EXCEPTION 'only the owner may set the times of events'
            USING ERRCODE = 'AN003';
    END IF;
    IF p_position_floor > log_position THEN
        -- The caller has served positions that were lost since. Only the start of an epoch may have a gap.
        IF log_position >= (SELECT o.first_position FROM epochs o ORDER BY o.epoch DESC LIMIT 1) THEN
            epoch := begin_epoch(format(
                'the log ends at %s, and a client has seen position %s', log_position, p_position_floor));
        END IF;
        log_position := p_position_floor;
    END IF;
    written_at := greatest(coalesce(p_now, clock_timestamp()), log_time);
    v_is_ahead := p_event_times IS NULL
                  AND written_at > p_service_time + interval '1 day'
                  AND written_at > coalesce(log_time, '-infinity');

    -- 2. Read the numbers and the heads of the streams: from the cache, or 0 for a new stream. The other heads are read
    --    below. Also find out whether an event id is known, and what a plain batch would write if each append is the
    --    only one to its stream and if no head must be read.
    SELECT array_agg(h.stream_no),
           array_agg(h.head),
           array_agg(h.sealed_version),
           array_agg(h.head),
           array_agg(h.head + 1),
           array_agg(log_position + h.events_before + 1),
           array_agg(h.new_at),
           bool_or(h.new_at IS NOT NULL),
           bool_or(h.sealed_version IS NOT NULL),
           bool_and(CASE h.expected
                        WHEN any_version THEN true
                        WHEN exists_version THEN h.head > 0
                        ELSE h.expected = h.head
                    END),
           NOT p_ids_are_new AND EXISTS (  -- marker: known-ids
               SELECT FROM unnest(p_event_ids) AS i (event_id) JOIN event_ids k ON k.event_id = i.event_id)
      INTO stream_nos, v_heads, v_sealed, append_current_versions, append_first_versions, append_first_positions,
           v_new_times, v_any_new, v_any_stored, v_is_plain, v_any_known
      FROM (SELECT coalesce(t.stream_no, s.stream_no, nextval('streams_stream_no_seq')) AS stream_no,
                   CASE WHEN t.stream_no IS NULL THEN 0 ELSE t.head END AS head,
                   s.version AS sealed_version,
                   CASE WHEN t.stream_no IS NULL AND s.stream_no IS NULL THEN
                       coalesce(p_event_times[t.events_before + 1], written_at)
                   END AS new_at,
                   t.expected,
                   t.events_before
              FROM unnest(p_stream_types, p_stream_ids, p_append_expected, p_stream_offsets, stream_nos, p_stream_heads)
                   WITH ORDINALITY
                   AS t (aggregate_type, aggregate_id, expected, events_before, stream_no, head, n)
              LEFT JOIN streams s
                ON s.aggregate_type = CASE WHEN t.stream_no IS NULL THEN t.aggregate_type END  -- NULL: no probe
               AND s.aggregate_id = t.aggregate_id
             WHERE t.aggregate_type IS NOT NULL  -- p_append_expected may be longer than the list of streams
             ORDER BY t.n) AS h;
    -- The head of an existing stream, as in stream_head. This is a statement of its own because a statement that names
    -- events opens its partitions, whether it needs them or not.
    IF v_any_stored THEN
        SELECT array_agg(CASE WHEN t.sealed_version IS NULL THEN t.head ELSE greatest(
                   (SELECT e.version
                      FROM events e
                     WHERE e.aggregate_type = t.aggregate_type
                       AND e.aggregate_id = t.aggregate_id
                       AND e.occurred_at >= open_from
                       AND e.occurred_at <= log_time
                     ORDER BY e.version DESC
                     LIMIT 1),
                   t.sealed_version)
               END)
          INTO v_heads
          FROM unnest(p_stream_types, p_stream_ids, v_heads, v_sealed)
               AS t (aggregate_type, aggregate_id, head, sealed_version);
    END IF;
    -- The version before each append, after the earlier appends of the batch to the same stream.
    IF v_any_stored OR v_appends > cardinality(p_stream_types) THEN
        SELECT array_agg(a.head),
               array_agg(a.head + 1),
               array_agg(log_position + a.events_before + 1),
               bool_and(CASE a.expected
                            WHEN any_version THEN true
                            WHEN exists_version THEN a.head > 0
                            ELSE a.expected = a.head
                        END)
          INTO append_current_versions, append_first_versions, append_first_positions, v_is_plain
          FROM (SELECT v_heads[t.stream] + t.earlier AS head, t.expected, t.events_before
                  FROM unnest(p_append_streams, p_append_expected, p_append_earlier, p_append_offsets)
                       AS t (stream, expected, earlier, events_before)) AS a;
    END IF;

    -- 3. Decide.  -- marker: decide
    --    Nearly every batch is plain: no event is known, every version is as expected, and no time goes backwards. Then
    --    all events are written.
    v_is_plain := v_is_plain AND NOT v_any_known;
    IF v_is_plain AND p_event_times IS NOT NULL THEN
        SELECT bool_and(t.occurred_at >= t.before) IS NOT FALSE
          INTO v_is_plain
          FROM (SELECT e.occurred_at, lag(e.occurred_at, 1, log_time) OVER (ORDER BY e.n)
                  FROM unnest(p_event_times) WITH ORDINALITY AS e (occurred_at, n)) AS t (occurred_at, before);
    END IF;
    IF v_is_plain THEN
        request_outcomes := array_fill(written, ARRAY[v_requests]);
        v_written_times := v_new_times;  -- marker: plain-batch
        log_position := log_position + v_events;
        log_time := coalesce(p_event_times[v_events], written_at);
        v_requests := 0;  -- no request is left to decide
    ELSE
        request_outcomes        := array_fill(written, ARRAY[v_requests]);
        append_first_versions   := array_fill(0, ARRAY[v_appends]);
        append_first_positions  := array_fill(0::bigint, ARRAY[v_appends]);
        append_current_versions := array_fill(0, ARRAY[v_appends]);
        v_written_times         := array_fill(NULL::timestamptz, ARRAY[cardinality(p_stream_types)]);
    END IF;

    -- The places of the known event ids, and whether their content is equal. An archived event is compared by its hash,
    -- any other by its content. The content of an erased event, whose hash is 0, cannot be compared and counts as equal.
    IF v_any_known THEN
        SELECT array_agg(k.stream_no ORDER BY i.n),
               array_agg(k.version ORDER BY i.n),
               array_agg(k.global_position ORDER BY i.n),
               array_agg(k.occurred_at ORDER BY i.n),
               array_agg(k.content_hash = 0 OR coalesce(  -- marker: erased-is-equal
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

    -- The requests in order. A replay is recognised before the version is compared.
    FOR v_request IN 1 .. v_requests LOOP
        v_last_append := v_append + p_request_appends[v_request];
        v_last_event := coalesce(p_append_offsets[v_last_append + 1], v_events);
        v_outcome := written;
        v_known_count := 0;

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
                v_known_count := v_known_count + (event_versions[e] IS NOT NULL)::integer;
            END LOOP;
        END IF;
        IF v_known_count > 0 THEN
            v_outcome := CASE WHEN v_known_count = v_last_event - v_event THEN replayed ELSE partly_known END;
            FOR e IN v_event + 1 .. v_last_event LOOP
                CONTINUE WHEN event_versions[e] IS NULL;
                v_event_append := p_event_appends[e];
                v_first_event := p_append_offsets[v_event_append] + 1;
                IF v_known_streams[e] <> stream_nos[p_append_streams[v_event_append]] OR NOT v_known_equal[e] THEN
                    v_outcome := id_reused;
                    EXIT;
                ELSIF event_versions[e] IS DISTINCT FROM event_versions[v_first_event] + e - v_first_event THEN
                    v_outcome := partly_known;
                END IF;
            END LOOP;
        END IF;

        request_outcomes[v_request] := v_outcome;
        IF v_outcome = written THEN
            FOR a IN v_append + 1 .. v_last_append LOOP
                v_stream := p_append_streams[a];
                v_first_event := p_append_offsets[a] + 1;
                v_count := coalesce(p_append_offsets[a + 1], v_events) - p_append_offsets[a];
                append_first_versions[a] := v_heads[v_stream] + 1;
                append_first_positions[a] := log_position + 1;  -- marker: first-position
                IF v_heads[v_stream] = 0 AND v_new_times[v_stream] IS NOT NULL THEN
                    v_written_times[v_stream] := coalesce(p_event_times[v_first_event], written_at);
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

    IF v_is_ahead AND written = ANY (request_outcomes) THEN
        RAISE EXCEPTION 'the clock of PostgreSQL is more than a day ahead of the clock of the service'
            USING ERRCODE = 'AN002';
    END IF;

    IF log_position > v_bound THEN
        PERFORM setval('position_bound', log_position + 10000);
    END IF;

    -- 4. Write the accepted events, in the order of the batch. In a SELECT list, PostgreSQL reads several unnest() in
    --    parallel, and without the copy of all rows that unnest() in FROM makes.
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
     WHERE append_first_versions[i.append] > 0;  -- marker: insert-events

    IF v_any_new THEN
        INSERT INTO streams (stream_no, aggregate_type, aggregate_id, first_occurred_at)
        SELECT t.stream_no, t.aggregate_type, t.aggregate_id, t.first_occurred_at
          FROM (SELECT unnest(stream_nos), unnest(p_stream_types), unnest(p_stream_ids), unnest(v_written_times))
               AS t (stream_no, aggregate_type, aggregate_id, first_occurred_at)
         WHERE t.first_occurred_at IS NOT NULL;  -- marker: insert-streams
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
     WHERE append_first_versions[i.append] > 0;  -- marker: insert-event-ids
END
$$;

REVOKE ALL ON FUNCTION append_events_locked FROM PUBLIC;
