-- Epochs. A new one begins when the end of the log may have been lost, and says where: no cursor of an earlier epoch
-- that lies beyond may go on as if nothing had happened.

-- Appends and reads queue up behind a statement that waits for a lock: it gives up instead, and is tried again later.
SET LOCAL lock_timeout = '3s';

-- Which cluster, which of its timelines, and which table the epoch is of; NULL where PostgreSQL does not tell.
ALTER TABLE epochs ADD COLUMN origin text;

-- The cluster, its timeline and the oid of the log: a promotion and a point-in-time restore change the timeline, a dump
-- that is loaded changes the oid, wherever it is loaded. The name of the current WAL file has the new timeline at once;
-- pg_control_checkpoint() only after a checkpoint.
CREATE FUNCTION log_origin() RETURNS text
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN format('%s/%s/%s',
                  (SELECT c.system_identifier FROM pg_control_system() AS c),
                  left(pg_walfile_name(pg_current_wal_lsn()), 8),
                  'events'::regclass::oid);
EXCEPTION WHEN OTHERS THEN
    -- Some managed databases hide these functions, each in its own way. Then nothing begins an epoch but begin_epoch();
    -- the service says so when it starts.
    RETURN NULL;
END
$$;

-- Begins an epoch after the last event of the log; the new epoch.
--
-- Its number is the time, in seconds since 2020, and not the next one: a copy that does not know of an epoch could give
-- its number out a second time, for another history.
--
-- Locks: the append lock (events, 1), to the end of the transaction: no append may come between the head and the epoch. It
-- takes a turn: what others know of the log is void.
CREATE FUNCTION begin_epoch(p_reason text) RETURNS integer
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $$
DECLARE
    v_head  bigint;
    v_epoch integer;
BEGIN
    PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);
    PERFORM nextval('append_turns');
    v_head := greatest(
        (SELECT e.global_position FROM events e ORDER BY e.global_position DESC LIMIT 1),
        (SELECT max(p.last_position) FROM partitions p),
        0);
    INSERT INTO epochs (epoch, first_position, reason, origin)
    SELECT greatest(max(o.epoch) + 1,
                    extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01T00:00:00Z')::integer),
           v_head + 1,
           p_reason,
           log_origin()
      FROM epochs o
    RETURNING epoch
      INTO v_epoch;
    RETURN v_epoch;
END
$$;

-- Begins an epoch if the log has moved to another timeline or cluster since the last one began; whether it did.
-- Every connection that appends calls it first: PostgreSQL changes its timeline only where no such connection can be.
--
-- Locks: none as long as nothing has changed; else those of begin_epoch.
-- SECURITY DEFINER: the append path, whose role owns nothing, has to note the epoch.
CREATE FUNCTION keep_epoch() RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    v_origin text;
    v_known  text;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'a standby takes no appends'
            USING ERRCODE = 'read_only_sql_transaction';
    END IF;
    v_origin := log_origin();
    IF v_origin IS NULL
       OR v_origin IS NOT DISTINCT FROM (SELECT origin FROM epochs ORDER BY epoch DESC LIMIT 1) THEN
        RETURN false;
    END IF;

    PERFORM pg_advisory_xact_lock('events'::regclass::oid::integer, 1);
    -- Read again: another process may have been faster.
    v_known := (SELECT origin FROM epochs ORDER BY epoch DESC LIMIT 1);
    IF v_known IS NULL THEN
        UPDATE epochs
           SET origin = v_origin
         WHERE epoch = (SELECT max(epoch) FROM epochs);
        RETURN false;
    END IF;
    IF v_known = v_origin THEN
        RETURN false;
    END IF;
    PERFORM begin_epoch(format('the log has moved from %s to %s (cluster/timeline/table)', v_known, v_origin));
    RETURN true;
END
$$;

UPDATE epochs
   SET origin = log_origin();

REVOKE ALL ON FUNCTION log_origin() FROM PUBLIC;
REVOKE ALL ON FUNCTION begin_epoch(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION keep_epoch() FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT EXECUTE ON FUNCTION keep_epoch() TO annals_app;
    END IF;
END
$$;
