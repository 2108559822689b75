-- Returns the first version of a stream whose event is after a position of the log. If no such event exists between the
-- two times, returns the last version found plus one; NULL if the stream has no event between the two times.
--
--   p_position            the position of the log
--   p_earliest, p_latest  the times between which to search, both included
--
-- The versions of a stream are in the order of the log, so a bisection finds the version.
--
-- Locks: those of reading.
CREATE OR REPLACE FUNCTION first_version_after(
    p_aggregate_type text,
    p_aggregate_id text,
    p_position bigint,
    p_earliest timestamptz,
    p_latest timestamptz
)
RETURNS integer
LANGUAGE plpgsql
STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    -- Events up to version v_low are at or before the position; events above version v_high are after it.
    v_low      integer;
    v_high     integer;
    v_middle   integer;
    v_position bigint;
BEGIN
    SELECT e.version - 1
      INTO v_low
      FROM events e
     WHERE e.aggregate_type = p_aggregate_type
       AND e.aggregate_id = p_aggregate_id
       AND e.occurred_at >= p_earliest
       AND e.occurred_at <= p_latest
     ORDER BY e.version
     LIMIT 1;
    SELECT e.version
      INTO v_high
      FROM events e
     WHERE e.aggregate_type = p_aggregate_type
       AND e.aggregate_id = p_aggregate_id
       AND e.occurred_at >= p_earliest
       AND e.occurred_at <= p_latest
     ORDER BY e.version DESC
     LIMIT 1;
    WHILE v_low < v_high LOOP
        v_middle := v_low + (v_high - v_low + 1) / 2;
        SELECT e.global_position
          INTO v_position
          FROM events e
         WHERE e.aggregate_type = p_aggregate_type
           AND e.aggregate_id = p_aggregate_id
           AND e.version = v_middle
           AND e.occurred_at >= p_earliest
           AND e.occurred_at <= p_latest;
        IF v_position <= p_position THEN
            v_low := v_middle;
        ELSE
            v_high := v_middle - 1;
        END IF;
    END LOOP;
    RETURN v_low + 1;
END
$$;
