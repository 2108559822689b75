-- Erases in another table of a month what erasures have erased since its events were read. A repeated call changes
-- nothing. The bytes stay in the pages of the table, so these erasures remain pending for the month.
--
--   p_table                 the table, which no reader uses yet
--   p_starts_at, p_ends_at  the bounds of the month
--   p_last_erasure          the last erasure before the events were read
--
-- Locks: ROW EXCLUSIVE on the table. The caller holds a lock that excludes erasures in progress.
CREATE OR REPLACE FUNCTION erase_again(
    p_table text,
    p_starts_at timestamptz,
    p_ends_at timestamptz,
    p_last_erasure bigint
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
-- The erased events are few, and the table can be large.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    v_erasure bigint;
BEGIN
    PERFORM set_config('annals.erasing', 'on', true);
    -- One after another, because an event may be in several of them.
    FOR v_erasure IN
        SELECT DISTINCT d.erasure
          FROM erased_events d
         WHERE d.erasure > p_last_erasure
           AND d.occurred_at >= p_starts_at
           AND d.occurred_at < p_ends_at
         ORDER BY d.erasure
    LOOP
        EXECUTE format(
            'UPDATE %I AS e
                SET event_data = erase_members(e.event_data, ''event_data'', d.members),
                    metadata = erase_members(e.metadata, ''metadata'', d.members)
               FROM erased_events d
              WHERE d.erasure = $1
                AND d.occurred_at >= $2
                AND d.occurred_at < $3
                AND e.global_position = d.global_position',
            p_table)
          USING v_erasure, p_starts_at, p_ends_at;
    END LOOP;
    PERFORM set_config('annals.erasing', 'off', true);
END
$$;

REVOKE ALL ON FUNCTION erase_again FROM PUBLIC;
