-- Appends a single event and commits, if the append is plain; see append_event_locked. The comments of append_events on
-- rights and on the COMMIT apply here, too.
CREATE OR REPLACE PROCEDURE append_event(
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
AS $$
BEGIN
    SELECT d.*
      INTO stream_no, generation, log_position, log_time, open_from, epoch, version
      FROM append_event_locked(
               p_aggregate_type => p_aggregate_type,
               p_aggregate_id => p_aggregate_id,
               p_expected => p_expected,
               p_event_id => p_event_id,
               p_event_type => p_event_type,
               p_event_data => p_event_data,
               p_metadata => p_metadata,
               p_correlation_id => p_correlation_id,
               p_causation_id => p_causation_id,
               p_id_is_new => p_id_is_new,
               p_position_floor => p_position_floor,
               p_now => p_now,
               p_service_time => p_service_time,
               p_stream_head => p_stream_head,
               p_stream_no => p_stream_no,
               p_last_generation => p_last_generation,
               p_log_position => p_log_position,
               p_log_time => p_log_time,
               p_open_from => p_open_from) AS d;
    COMMIT;  -- marker: commit
END
$$;

REVOKE ALL ON PROCEDURE append_event FROM PUBLIC;
