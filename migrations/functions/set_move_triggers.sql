-- Makes this database accept some writes or none while its log moves, or all writes again.
--
--   p_refused   none: all writes are accepted
--               history: what would change copied events is refused: new erasures, and sealing a partition
--               all: all writes are refused, except to counts and to the last use of keys
--
-- Locks: append_lock first, so that no append is in progress, and then each table in SHARE ROW EXCLUSIVE mode, so that no
-- other write is; held to the end of the transaction. Readers do not wait. A trigger that is dropped needs ACCESS
-- EXCLUSIVE, which happens only at the end of a move. The order of the tables is that of the service's writes.
CREATE OR REPLACE FUNCTION set_move_triggers(p_refused text) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET client_min_messages = warning
AS $$
DECLARE
    v_table    text;
    v_history  text;
    v_all      text;
    v_refused  text;
BEGIN
    LOCK TABLE append_lock IN EXCLUSIVE MODE;
    -- Cached heads of streams are void afterwards.
    PERFORM nextval('append_generation');
    FOR v_table, v_history, v_all IN
        VALUES ('event_ids', NULL, 'INSERT'),
               ('streams', 'UPDATE OR DELETE', 'UPDATE OR DELETE'),
               ('erasures', 'INSERT', 'INSERT OR UPDATE OR DELETE'),
               ('partitions', 'UPDATE OR DELETE', 'UPDATE OR DELETE'),
               ('epochs', NULL, 'INSERT OR UPDATE OR DELETE'),
               ('lost_epochs', NULL, 'INSERT OR UPDATE OR DELETE'),
               ('snapshots', NULL, 'INSERT OR UPDATE OR DELETE'),
               ('reducers', NULL, 'INSERT OR UPDATE OR DELETE'),
               ('groups', NULL, 'INSERT OR UPDATE OR DELETE'),
               ('claims', NULL, 'INSERT OR UPDATE OR DELETE'),
               ('parked_streams', NULL, 'INSERT OR UPDATE OR DELETE'),
               ('projection_positions', NULL, 'INSERT OR UPDATE OR DELETE'),
               ('api_keys', NULL, 'INSERT OR DELETE OR UPDATE OF expires_at, revoked_at')
    LOOP
        v_refused := CASE p_refused WHEN 'history' THEN v_history WHEN 'all' THEN v_all END;
        IF v_refused IS NOT NULL THEN
            EXECUTE format('CREATE OR REPLACE TRIGGER refused_while_moving BEFORE %s ON %I
                                FOR EACH STATEMENT EXECUTE FUNCTION refuse_while_moving()', v_refused, v_table);
        ELSE
            EXECUTE format('DROP TRIGGER IF EXISTS refused_while_moving ON %I', v_table);
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION set_move_triggers FROM PUBLIC;
