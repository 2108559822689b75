-- The checksum of a snapshot, in PL/pgSQL: its SQL form could not be inlined (it calls what is only STABLE), so every load
-- parsed and planned it anew. The value is the same.
--
-- No locks but the function's own row.

CREATE OR REPLACE FUNCTION snapshot_checksum(
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
