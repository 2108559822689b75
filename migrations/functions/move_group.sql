-- Moves the stored position of a group forward. Returns whether it has moved.
--
--   p_group_no   the group
--   p_revision   the revision at which the position was computed: after a reset it says nothing
--   p_position   every event up to here was processed, or belongs to a parked stream
--
-- Locks: the row of the group, shared, and that of its projection.
CREATE OR REPLACE FUNCTION move_group(p_group_no bigint, p_revision bigint, p_position bigint) RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $$
DECLARE
    v_name text;
BEGIN
    SELECT g.projection_name
      INTO v_name
      FROM groups g
     WHERE g.group_no = p_group_no
       AND g.revision = p_revision
       FOR SHARE;
    UPDATE projection_positions AS p
       SET last_processed_position = p_position,
           last_processed_at = clock_timestamp(),
           epoch = (SELECT max(e.epoch) FROM epochs e)
     WHERE p.projection_name = v_name
       AND p.last_processed_position < p_position;
    RETURN FOUND;
END
$$;
