-- The version with which a stream goes on after a position of the log, looked for between two times, by bisection: the
-- versions of a stream are in the order of the log. One after the last if nothing of the stream follows there.
--
-- Locks: none but those of reading.
CREATE FUNCTION first_version_after(
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
    -- What is up to low stands up to the position; what is above high does not.
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
