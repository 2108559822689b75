-- Returns the identity of the log: the cluster, its timeline, and the oid of the events table; NULL if PostgreSQL hides
-- it.
--
-- A promotion and a point-in-time restore change the timeline. Loading a dump changes the oid. The name of the current
-- WAL file contains the new timeline at once; pg_control_checkpoint() does so only after a checkpoint.
CREATE OR REPLACE FUNCTION log_origin() RETURNS text
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN format('%s/%s/%s',
                  (SELECT c.system_identifier FROM pg_control_system() AS c),
                  left(pg_walfile_name(pg_current_wal_lsn()), 8),
                  'events'::regclass::oid);
EXCEPTION WHEN OTHERS THEN
    -- Some managed databases refuse these functions, each with an error of its own. Then only begin_epoch() begins an
    -- epoch, and the service warns about that when it starts.
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION log_origin FROM PUBLIC;
