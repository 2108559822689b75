-- Begins an epoch if the log has moved to another timeline, cluster or table since the last epoch began. Returns
-- whether it did.
--
-- Every connection that appends calls this function first. PostgreSQL changes its timeline only while no such
-- connection exists.
--
-- Locks: none if nothing has changed; otherwise those of begin_epoch.
-- SECURITY DEFINER: the append path records the epoch, and its role owns nothing.
CREATE OR REPLACE FUNCTION ensure_current_epoch() RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    v_origin   text;
    v_recorded text;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'a standby accepts no appends'
            USING ERRCODE = 'read_only_sql_transaction';
    END IF;
    v_origin := log_origin();
    IF v_origin IS NULL
       OR v_origin IS NOT DISTINCT FROM (SELECT o.origin FROM epochs o ORDER BY o.epoch DESC LIMIT 1) THEN
        RETURN false;
    END IF;

    LOCK TABLE append_lock IN EXCLUSIVE MODE;
    -- Read again under the lock: another process may have recorded the origin in the meantime.
    v_recorded := (SELECT o.origin FROM epochs o ORDER BY o.epoch DESC LIMIT 1);
    IF v_recorded IS NULL THEN
        UPDATE epochs
           SET origin = v_origin
         WHERE epoch = (SELECT max(epoch) FROM epochs);
        RETURN false;
    END IF;
    IF v_recorded = v_origin THEN
        RETURN false;
    END IF;
    PERFORM begin_epoch(format('the log has moved from %s to %s (cluster/timeline/table)', v_recorded, v_origin));
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION ensure_current_epoch FROM PUBLIC;
