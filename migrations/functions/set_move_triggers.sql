-- Makes this database accept some writes or none while its log moves, or all writes again.
--
--   p_refused   none: all writes are accepted
--               history: what would change copied events is refused: erasures, and sealing a partition
--               all: all writes are refused
--
-- Locks: append_lock first, so that no append is in progress, and then each table in SHARE ROW EXCLUSIVE mode, so that no
-- other write is; held to the end of the transaction.
CREATE OR REPLACE FUNCTION set_move_triggers(p_refused text) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET client_min_messages = warning
AS $$
DECLARE
    v_table text;
    v_event text;
BEGIN
    LOCK TABLE append_lock IN EXCLUSIVE MODE;
    -- Cached heads of streams are void afterwards.
    PERFORM nextval('append_generation');
    FOR v_table, v_event IN
        VALUES ('event_ids', 'INSERT'),
               ('erasures', 'INSERT OR UPDATE OR DELETE'),
               ('partitions', 'UPDATE OR DELETE'),
               ('streams', 'UPDATE OR DELETE'),
               ('epochs', 'INSERT OR UPDATE OR DELETE'),
               ('lost_epochs', 'INSERT OR UPDATE OR DELETE'),
               ('snapshots', 'INSERT OR UPDATE OR DELETE'),
               ('reducers', 'INSERT OR UPDATE OR DELETE'),
               ('projection_positions', 'INSERT OR UPDATE OR DELETE'),
               ('groups', 'INSERT OR UPDATE OR DELETE'),
               ('claims', 'INSERT OR UPDATE OR DELETE'),
               ('parked_streams', 'INSERT OR UPDATE OR DELETE'),
               ('api_keys', 'INSERT OR DELETE OR UPDATE OF expires_at, revoked_at')
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS refused_while_moving ON %I', v_table);
        IF p_refused = 'all'
           OR p_refused = 'history' AND v_table IN ('erasures', 'partitions', 'streams') THEN
            EXECUTE format('CREATE TRIGGER refused_while_moving BEFORE %s ON %I
                                FOR EACH STATEMENT EXECUTE FUNCTION refuse_while_moving()', v_event, v_table);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION set_move_triggers FROM PUBLIC;
