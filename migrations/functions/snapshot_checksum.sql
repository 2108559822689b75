-- Returns the checksum of everything that a load uses of a snapshot.
--
-- The language is PL/pgSQL and not SQL: PostgreSQL cannot inline an SQL version, because it calls STABLE functions, and
-- every load would parse and plan it again.
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
