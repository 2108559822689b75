-- Returns the head of a stream: its version, and the times of its first and last event; no row if the stream does not
-- exist.
--
--   p_open_from   start of the oldest partition that is not sealed. An older time returns the same: the version that is
--                 found may then be in a partition before an archived one, and streams.version is higher.
--
-- The version is the highest one in the open partitions, or else the one that sealing wrote into streams. append_events
-- computes heads for a whole batch and repeats this subquery; a test compares the two texts.
-- PostgreSQL inlines this function into the calling statement (a single SELECT, STABLE, without SET).
CREATE OR REPLACE FUNCTION stream_head(p_aggregate_type text, p_aggregate_id text, p_open_from timestamptz)
RETURNS TABLE (version integer, first_occurred_at timestamptz, last_occurred_at timestamptz)
LANGUAGE sql
STABLE
AS $$
    SELECT greatest(o.version, s.version),
           s.first_occurred_at,
           CASE WHEN o.version >= s.version THEN o.occurred_at ELSE s.last_occurred_at END
      FROM streams s
      LEFT JOIN LATERAL (
           SELECT e.version, e.occurred_at
             FROM events e
            WHERE e.aggregate_type = p_aggregate_type
              AND e.aggregate_id = p_aggregate_id
              AND e.occurred_at >= p_open_from
            ORDER BY e.version DESC
            LIMIT 1) AS o
        ON true
     WHERE s.aggregate_type = p_aggregate_type
       AND s.aggregate_id = p_aggregate_id
$$;
