-- Records that all $erased events of an erasure are appended, so that its content is hidden. Does nothing if that is
-- recorded already.
--
--   p_erasure             the erasure
--   p_announced_position  the position of the last $erased event
--   p_aggregate_types, p_aggregate_ids, p_versions   the streams, and the version of the $erased event of each
--
-- Locks: the rows of the erasure.
-- SECURITY DEFINER: the role of the service may not write erasures in any other way.
CREATE OR REPLACE FUNCTION record_announcement(
    p_erasure bigint,
    p_announced_position bigint,
    p_aggregate_types text[],
    p_aggregate_ids text[],
    p_versions integer[]
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE erased_streams AS s
       SET announced_version = i.version
      FROM unnest(p_aggregate_types, p_aggregate_ids, p_versions) AS i (aggregate_type, aggregate_id, version)
     WHERE s.erasure = p_erasure
       AND s.aggregate_type = i.aggregate_type
       AND s.aggregate_id = i.aggregate_id;
    UPDATE erasures
       SET announced_position = p_announced_position,
           hidden_at = clock_timestamp()
     WHERE erasure = p_erasure
       AND announced_position IS NULL;
END
$$;

REVOKE ALL ON FUNCTION record_announcement FROM PUBLIC;
