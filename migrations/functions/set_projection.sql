-- Sets the position of a projection, or creates the projection.
--
-- p_expected is the position that the projection must have (NULL: any). p_may_create and p_may_update say whether the
-- projection may be new, and whether it may exist. p_may_regress permits a position before the current one. p_key_id is
-- the API key of the client (NULL: none). p_limit is the largest number of projections, p_key_limit the largest number
-- that one key has created.
--
-- outcome is created, updated, regressed, conflict, limit, key_limit, or group: a group moves this projection.
-- current_position is the position afterwards; NULL if the projection does not exist.
--
-- Locks: the projection's row; the table, in SHARE UPDATE EXCLUSIVE mode, while a projection is created. Creations are
-- rare, and the limits are exact because only one session creates a projection at a time.
CREATE OR REPLACE FUNCTION set_projection(
    p_name text,
    p_position bigint,
    p_expected bigint,
    p_may_create boolean,
    p_may_update boolean,
    p_may_regress boolean,
    p_key_id text,
    p_limit bigint,
    p_key_limit bigint,
    OUT outcome text,
    OUT current_position bigint
)
LANGUAGE plpgsql
VOLATILE
AS $$
DECLARE
    v_is_locked boolean := false;
    v_all bigint;
    v_of_key bigint;
BEGIN
    LOOP
        SELECT p.last_processed_position
          INTO current_position
          FROM projection_positions p
         WHERE p.projection_name = p_name
           FOR UPDATE;
        EXIT WHEN FOUND OR NOT p_may_create OR v_is_locked;
        -- Another session may create the projection while this one waits for the lock, so the row is read again.
        LOCK TABLE projection_positions IN SHARE UPDATE EXCLUSIVE MODE;
        v_is_locked := true;
    END LOOP;

    IF current_position IS NULL AND p_may_create THEN
        SELECT count(*), count(*) FILTER (WHERE p.created_by = p_key_id)
          INTO v_all, v_of_key
          FROM projection_positions p;
        IF v_all >= p_limit THEN
            outcome := 'limit';
        ELSIF v_of_key >= p_key_limit THEN
            outcome := 'key_limit';
        ELSE
            INSERT INTO projection_positions (projection_name, last_processed_position, epoch, created_by)
            VALUES (p_name, p_position, (SELECT max(e.epoch) FROM epochs e), p_key_id);
            outcome := 'created';
            current_position := p_position;
        END IF;
    ELSIF EXISTS (SELECT FROM groups g WHERE g.projection_name = p_name) THEN
        outcome := 'group';
    ELSIF current_position IS NULL OR NOT p_may_update OR current_position <> p_expected THEN
        outcome := 'conflict';
    ELSIF p_position < current_position AND NOT p_may_regress THEN
        outcome := 'regressed';
    ELSE
        UPDATE projection_positions AS p
           SET last_processed_position = p_position,
               last_processed_at = clock_timestamp(),
               epoch = (SELECT max(e.epoch) FROM epochs e)
         WHERE p.projection_name = p_name;
        outcome := 'updated';
        current_position := p_position;
    END IF;
END
$$;
