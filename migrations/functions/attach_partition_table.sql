-- Attaches a table that create_partition_table has created as the partition of one month.
--
--   p_name                 the name of the table
--   p_starts_at, p_ends_at the bounds of the month; p_ends_at is exclusive
--
-- Locks: SHARE UPDATE EXCLUSIVE on events, by ATTACH. CREATE TABLE ... PARTITION OF would take ACCESS EXCLUSIVE, and
-- all appends would wait behind any reader.
CREATE OR REPLACE FUNCTION attach_partition_table(p_name text, p_starts_at timestamptz, p_ends_at timestamptz)
RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    EXECUTE format(
        'ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        p_name, p_starts_at, p_ends_at);
END
$$;

REVOKE ALL ON FUNCTION attach_partition_table FROM PUBLIC;
