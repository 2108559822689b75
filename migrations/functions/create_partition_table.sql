-- Creates an empty table for the events of one month. It is not a partition yet: create_partition attaches it, and a
-- restore fills it from the archive first.
--
--   p_name   the name of the table
--
-- Locks: ACCESS SHARE on events, by LIKE.
CREATE OR REPLACE FUNCTION create_partition_table(p_name text) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET client_min_messages = warning
AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', p_name);
    EXECUTE format(
        'ALTER TABLE %I
             ADD CONSTRAINT %I UNIQUE (aggregate_type, aggregate_id, version),
             ADD CONSTRAINT %I UNIQUE (global_position)',
        p_name, p_name || '_aggregate_key', p_name || '_position_key');
    -- The table is insert-only: vacuum starts early and freezes at once, so that a sealed partition is never rewritten.
    EXECUTE format(
        'ALTER TABLE %I SET (
             autovacuum_vacuum_insert_scale_factor = 0.05,
             autovacuum_freeze_min_age = 0,
             autovacuum_analyze_scale_factor = 0.05)',
        p_name);
    -- PostgreSQL's statistics would contain samples of documents, which an erasure does not reach.
    EXECUTE format(
        'ALTER TABLE %I
             ALTER COLUMN event_data SET STATISTICS 0,
             ALTER COLUMN metadata SET STATISTICS 0',
        p_name);
    EXECUTE format(
        'CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
             FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
        p_name || '_immutable', p_name);
END
$$;

REVOKE ALL ON FUNCTION create_partition_table FROM PUBLIC;
