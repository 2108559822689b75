-- Erases events in the copy of a partition's table that were erased in the table since the copy began. Their bytes stay
-- in the pages of the copy, so the erasures after p_last_erasure remain pending for the month.
--
--   p_name                  the name of the partition and of its table
--   p_starts_at, p_ends_at  the bounds of the month
--   p_copy                  the copy
--   p_last_erasure          the last erasure of the month before the copy began
--
-- Locks: ROW EXCLUSIVE on the copy, ACCESS SHARE on the table.
CREATE OR REPLACE FUNCTION erase_in_copy(
    p_name text,
    p_starts_at timestamptz,
    p_ends_at timestamptz,
    p_copy text,
    p_last_erasure bigint
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
-- The erased events are few, and the tables can be large.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
BEGIN
    PERFORM set_config('annals.erasing', 'on', true);
    EXECUTE format(
        'UPDATE %I AS c
            SET event_data = e.event_data,
                metadata = e.metadata
           FROM erased_events d
           JOIN %I AS e
             ON e.global_position = d.global_position
          WHERE d.erasure > $1
            AND d.occurred_at >= $2
            AND d.occurred_at < $3
            AND c.global_position = d.global_position
            AND (c.event_data, c.metadata) IS DISTINCT FROM (e.event_data, e.metadata)',
        p_copy, p_name)
      USING p_last_erasure, p_starts_at, p_ends_at;
    PERFORM set_config('annals.erasing', 'off', true);
END
$$;

REVOKE ALL ON FUNCTION erase_in_copy FROM PUBLIC;
