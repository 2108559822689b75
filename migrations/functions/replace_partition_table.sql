-- Replaces the table of a partition by a copy, in which the bytes of erased content do not exist. Afterwards the former
-- table has the name p_copy, and the caller drops it.
--
--   p_name                  the name of the partition and of its table
--   p_starts_at, p_ends_at  the bounds of the month
--   p_copy                  the copy, which create_partition_table has created and which has a CHECK constraint
--                           annals_bounds with the bounds, so that ATTACH scans no row
--   p_copied_to             the copy has all events up to this position
--   p_last_erasure          the last erasure of the month before the copy began
--
-- Locks: ACCESS EXCLUSIVE on events, to the end of the transaction. Appends and reads wait meanwhile, so the caller has
-- set a short lock_timeout, and the copy has nearly all events.
CREATE OR REPLACE FUNCTION replace_partition_table(
    p_name text,
    p_starts_at timestamptz,
    p_ends_at timestamptz,
    p_copy text,
    p_copied_to bigint,
    p_last_erasure bigint
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $$
DECLARE
    v_former text := p_copy || '_former';
BEGIN
    LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE;
    PERFORM erase_again(
        p_table => p_copy,
        p_starts_at => p_starts_at,
        p_ends_at => p_ends_at,
        p_last_erasure => p_last_erasure);
    EXECUTE format(
        'INSERT INTO %I
         SELECT *
           FROM %I
          WHERE global_position > $1
          ORDER BY global_position',
        p_copy, p_name)
      USING p_copied_to;
    EXECUTE format('ALTER TABLE events DETACH PARTITION %I', p_name);
    EXECUTE format('ALTER TABLE %I RENAME TO %I', p_name, v_former);
    EXECUTE format('ALTER TABLE %I RENAME TO %I', p_copy, p_name);
    EXECUTE format('ALTER TABLE %I RENAME TO %I', v_former, p_copy);
    PERFORM attach_partition_table(p_name => p_name, p_starts_at => p_starts_at, p_ends_at => p_ends_at);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT annals_bounds', p_name);
END
$$;

REVOKE ALL ON FUNCTION replace_partition_table FROM PUBLIC;
