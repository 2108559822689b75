-- Begins an epoch after the end of the log. Returns the new epoch.
--
--   p_reason   why, for operators
--
-- An epoch's number is the time in seconds since 2020 and not the next number: a copy of the database that has no
-- record of an epoch could otherwise use its number again for another history.
--
-- Locks: append_lock, held to the end of the transaction, so that no append is between the end of the log and the
-- epoch. It increments the append generation: the caches of all sessions become invalid.
CREATE OR REPLACE FUNCTION begin_epoch(p_reason text) RETURNS integer
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $$
DECLARE
    v_end   bigint;
    v_epoch integer;
BEGIN
    LOCK TABLE append_lock IN EXCLUSIVE MODE;
    PERFORM nextval('append_generation');
    SELECT l.log_position
      INTO v_end
      FROM end_of_log() AS l;
    INSERT INTO epochs (epoch, first_position, reason, origin)
    SELECT greatest(max(o.epoch) + 1,
                    extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01T00:00:00Z')::integer),
           v_end + 1,
           p_reason,
           log_origin()
      FROM epochs o
    RETURNING epoch
      INTO v_epoch;
    RETURN v_epoch;
END
$$;

REVOKE ALL ON FUNCTION begin_epoch FROM PUBLIC;
