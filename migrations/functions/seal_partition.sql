-- Marks a partition as sealed in the catalogue, after seal_streams has sealed its streams. The partitions before it must
-- be sealed. Does nothing if another session has sealed it.
--
--   p_starts_at, p_ends_at   the bounds of the partition; a later event must exist
--
-- Sessions that append have cached the oldest open partition: the new generation makes their caches invalid. Autovacuum
-- analyzes each partition, but never their parent.
--
-- Locks: the partition's row; SHARE UPDATE EXCLUSIVE on events, by ANALYZE.
-- SECURITY DEFINER: the role of the service may not write the catalogue.
CREATE OR REPLACE FUNCTION seal_partition(p_starts_at timestamptz, p_ends_at timestamptz) RETURNS void
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    IF (SELECT l.occurred_at FROM last_event(p_starts_at) AS l) < p_ends_at IS NOT FALSE THEN
        RAISE EXCEPTION 'the partition that ends at % is not over', p_ends_at;
    END IF;
    IF EXISTS (SELECT FROM partitions p WHERE p.starts_at < p_starts_at AND p.sealed_at IS NULL) THEN
        RAISE EXCEPTION 'a partition before % is not sealed', p_starts_at;
    END IF;
    IF EXISTS (
       SELECT
         FROM (
              SELECT e.aggregate_type, e.aggregate_id, max(e.version) AS version
                FROM events e
               WHERE e.occurred_at >= p_starts_at
                 AND e.occurred_at < p_ends_at
               GROUP BY e.aggregate_type, e.aggregate_id) AS h
         JOIN streams s
           ON s.aggregate_type = h.aggregate_type
          AND s.aggregate_id = h.aggregate_id
        WHERE s.version < h.version) THEN
        RAISE EXCEPTION 'streams of the partition that ends at % are not sealed', p_ends_at;
    END IF;
    UPDATE partitions AS p
       SET first_position = held.first_position,
           last_position = held.last_position,
           events = held.events,
           first_occurred_at = held.first_occurred_at,
           last_occurred_at = held.last_occurred_at,
           sealed_at = clock_timestamp()
      FROM (
           SELECT min(e.global_position) AS first_position,
                  max(e.global_position) AS last_position,
                  count(*) AS events,
                  min(e.occurred_at) AS first_occurred_at,
                  max(e.occurred_at) AS last_occurred_at
             FROM events e
            WHERE e.occurred_at >= p_starts_at
              AND e.occurred_at < p_ends_at) AS held
     WHERE p.starts_at = p_starts_at
       AND p.ends_at = p_ends_at
       AND p.sealed_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM nextval('append_generation');
    ANALYZE events;
END
$$;

REVOKE ALL ON FUNCTION seal_partition FROM PUBLIC;
