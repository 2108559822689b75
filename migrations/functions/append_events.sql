-- Appends a batch and commits. This procedure is the only way to write events.
--
-- Parameters and results are those of append_events_locked. The procedure has invoker's rights, because a SECURITY
-- DEFINER procedure may not commit. Because of the COMMIT, no round trip to the client happens while the append lock is
-- held, and PostgreSQL refuses the call (2D000) within an open transaction.
CREATE OR REPLACE PROCEDURE append_events(
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
AS $$
DECLARE
    written  CONSTANT integer := 0;
    replayed CONSTANT integer := 1;
BEGIN
    SELECT d.*
      INTO stream_nos, generation, log_position, log_time, open_from, epoch,
           request_outcomes, append_first_versions, append_first_positions, append_current_versions,
           event_versions, event_positions, event_times, written_at
      FROM append_events_locked(
               p_stream_types => p_stream_types,
               p_stream_ids => p_stream_ids,
               p_stream_offsets => p_stream_offsets,
               p_request_appends => p_request_appends,
               p_append_streams => p_append_streams,
               p_append_expected => p_append_expected,
               p_append_offsets => p_append_offsets,
               p_append_earlier => p_append_earlier,
               p_event_appends => p_event_appends,
               p_event_offsets => p_event_offsets,
               p_event_ids => p_event_ids,
               p_event_types => p_event_types,
               p_event_data => p_event_data,
               p_metadata => p_metadata,
               p_correlation_ids => p_correlation_ids,
               p_causation_ids => p_causation_ids,
               p_event_times => p_event_times,
               p_ids_are_new => p_ids_are_new,
               p_position_floor => p_position_floor,
               p_now => p_now,
               p_service_time => p_service_time,
               p_stream_heads => p_stream_heads,
               p_stream_nos => p_stream_nos,
               p_last_generation => p_last_generation,
               p_log_position => p_log_position,
               p_log_time => p_log_time,
               p_open_from => p_open_from) AS d;
    -- The transaction that has written a replayed event may have ended without waiting for a synchronous standby, for
    -- example because an operator has terminated it. A commit waits only if its transaction has written something.
    IF replayed = ANY (request_outcomes) AND NOT written = ANY (request_outcomes) THEN
        PERFORM pg_logical_emit_message(true, 'annals', 'replay');
    END IF;
    COMMIT;  -- marker: commit
END
$$;

REVOKE ALL ON PROCEDURE append_events FROM PUBLIC;
