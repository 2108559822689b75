-- Returns the position and the time of the last event of the log; no row if the log is empty.
--
--   p_open_from   start of the oldest partition that is not sealed. The partition of the last event is never sealed, so
--                 the open partitions contain the event. An older time returns the same, and reads more partitions.
--
-- The executor skips the sealed partitions because p_open_from is a parameter: a join with partitions would open all.
-- PostgreSQL inlines this function into the calling statement (a single SELECT, STABLE, without SET), so it has the
-- caller's snapshot and the caller's plan settings.
CREATE OR REPLACE FUNCTION last_event(p_open_from timestamptz)
RETURNS TABLE (global_position bigint, occurred_at timestamptz)
LANGUAGE sql
STABLE
AS $$
    SELECT e.global_position, e.occurred_at
      FROM events e
     WHERE e.occurred_at >= p_open_from
     ORDER BY e.global_position DESC
     LIMIT 1
$$;
