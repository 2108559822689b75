-- Writes the last version of the next streams of a partition into streams. Returns the last of these streams; no row at
-- the end.
--
--   p_starts_at, p_ends_at      the bounds of the partition
--   p_after_type, p_after_id    the last stream that is done
--   p_limit                     the number of streams
--
-- A partition is over if a later event exists. One that is not over has no final versions, so it is refused.
--
-- Locks: the rows of streams, in the order of their key; no other statement updates them.
-- SECURITY DEFINER: the role of the service may not write streams.
CREATE OR REPLACE FUNCTION seal_streams(
    p_starts_at timestamptz,
    p_ends_at timestamptz,
    p_after_type text,
    p_after_id text,
    p_limit bigint
)
RETURNS TABLE (aggregate_type text, aggregate_id text)
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    IF (SELECT l.occurred_at FROM last_event(p_starts_at) AS l) < p_ends_at IS NOT FALSE THEN
        RAISE EXCEPTION 'the partition that ends at % is not over', p_ends_at;
    END IF;
    RETURN QUERY
    WITH heads AS (
        SELECT e.aggregate_type, e.aggregate_id, max(e.version) AS version, max(e.occurred_at) AS occurred_at
          FROM events e
         WHERE e.occurred_at >= p_starts_at
           AND e.occurred_at < p_ends_at
           AND (e.aggregate_type, e.aggregate_id) > (p_after_type, p_after_id)
         GROUP BY e.aggregate_type, e.aggregate_id
         ORDER BY e.aggregate_type, e.aggregate_id
         LIMIT p_limit
    ), written AS (
        UPDATE streams s
           SET version = h.version,
               last_occurred_at = h.occurred_at
          FROM heads h
         WHERE s.aggregate_type = h.aggregate_type
           AND s.aggregate_id = h.aggregate_id
           -- A slower session may still seal an older partition: the version of a newer one must remain.
           AND s.version < h.version
    )
    SELECT h.aggregate_type::text, h.aggregate_id::text
      FROM heads h
     ORDER BY h.aggregate_type DESC, h.aggregate_id DESC
     LIMIT 1;
END
$$;

REVOKE ALL ON FUNCTION seal_streams FROM PUBLIC;
