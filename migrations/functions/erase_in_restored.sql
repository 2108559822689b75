-- Erases events in a table that is filled from the archive, if they were erased after the masks of the archive were
-- read. Their bytes stay in the pages, so those erasures remain pending for the month.
--
--   p_table                 the table, which no reader uses yet
--   p_starts_at, p_ends_at  the bounds of the month
--   p_last_erasure          the last erasure before the masks were read
--
-- Locks: erasures in SHARE mode, to the end of the transaction: erasures in progress end first, and later ones find the
-- rows in the restored table. ROW EXCLUSIVE on the table.
CREATE OR REPLACE FUNCTION erase_in_restored(
    p_table text,
    p_starts_at timestamptz,
    p_ends_at timestamptz,
    p_last_erasure bigint
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    v_erased record;
BEGIN
    LOCK TABLE erasures IN SHARE MODE;
    PERFORM set_config('annals.erasing', 'on', true);
    FOR v_erased IN
        SELECT d.global_position, d.members
          FROM erased_events d
         WHERE d.erasure > p_last_erasure
           AND d.occurred_at >= p_starts_at
           AND d.occurred_at < p_ends_at
    LOOP
        EXECUTE format(
            'UPDATE %I
                SET event_data = erase_members(event_data, ''event_data'', $1),
                    metadata = erase_members(metadata, ''metadata'', $1)
              WHERE global_position = $2',
            p_table)
          USING v_erased.members, v_erased.global_position;
    END LOOP;
    PERFORM set_config('annals.erasing', 'off', true);
END
$$;

REVOKE ALL ON FUNCTION erase_in_restored FROM PUBLIC;
