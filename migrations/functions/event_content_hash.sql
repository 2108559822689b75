-- Hashes the content of an event, which must be equal if the event is sent again. Equal JSONB values, like 1.0 and 1,
-- have equal hashes. The result is never 0, which is stored for an erased event.
CREATE OR REPLACE FUNCTION event_content_hash(
    p_event_type text,
    p_event_data jsonb,
    p_metadata jsonb,
    p_correlation_id uuid,
    p_causation_id uuid
)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT coalesce(
        nullif(
            hash_record_extended(ROW(p_event_type, p_event_data, p_metadata, p_correlation_id, p_causation_id), 0),
            0),
        1)
$$;
