-- Records the epochs that a process has served and that the log does not have. Returns their number.
--
--   p_epochs            the epochs that the process has served, at most 16
--   p_first_positions   the first position of each
--   p_former_epochs     the epoch before each
--
-- Every connection that appends calls this function after ensure_current_epoch.
--
-- Locks: none if the log has all of the epochs.
-- SECURITY DEFINER: the append path records them, and its role owns nothing.
CREATE OR REPLACE FUNCTION record_served_epochs(
    p_epochs integer[],
    p_first_positions bigint[],
    p_former_epochs integer[]
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    v_lost bigint;
BEGIN
    IF cardinality(p_epochs) > 16 THEN
        RAISE EXCEPTION 'a process records at most 16 epochs';
    END IF;
    INSERT INTO lost_epochs (epoch, first_position, former_epoch)
    SELECT s.epoch, s.first_position, s.former_epoch
      FROM unnest(p_epochs, p_first_positions, p_former_epochs) AS s (epoch, first_position, former_epoch)
     WHERE NOT EXISTS (SELECT FROM epochs o WHERE o.epoch = s.epoch)
        ON CONFLICT (epoch) DO NOTHING;
    GET DIAGNOSTICS v_lost = ROW_COUNT;
    RETURN v_lost;
END
$$;

REVOKE ALL ON FUNCTION record_served_epochs FROM PUBLIC;
