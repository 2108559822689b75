-- Returns the bucket of a stream, 0 to 255: the first byte of SHA-256 of "<type>/<id>". The partition of a stream is its
-- bucket modulo the number of partitions, which is a power of two up to 256.
--
-- PostgreSQL copies the body into the statement that calls the function. A call would take twice as long. So the function
-- has no settings of its own. It is not declared IMMUTABLE, because convert_to is not.
--
-- Locks: none.
CREATE OR REPLACE FUNCTION stream_bucket(p_aggregate_type text, p_aggregate_id text) RETURNS integer
LANGUAGE sql
STABLE
PARALLEL SAFE
AS $$
    SELECT get_byte(sha256(convert_to(p_aggregate_type || '/' || p_aggregate_id, 'UTF8')), 0)
$$;
