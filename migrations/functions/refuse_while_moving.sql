-- The trigger that refuses writes while the log moves to another database. Only the session of the move writes: it sets
-- annals.move to the id of the move.
--
-- `annals move` creates the triggers with set_move_triggers, and drops them.
--
-- Raises AN005.
CREATE OR REPLACE FUNCTION refuse_while_moving() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    IF current_setting('annals.move', true) IS NOT DISTINCT FROM (SELECT m.move_id::text FROM log_moves m) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the log is moving to another database'
        USING ERRCODE = 'AN005';
END
$$;
