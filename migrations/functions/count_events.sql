-- Counts the next events of the log, and returns the number of positions that are left to count; NULL if another
-- session counts at this moment.
--
--   p_limit   the largest number of positions to count, at least 1
--
-- The position in statistics never decreases. Otherwise events would be counted a second time.
--
-- Locks: the row of statistics, to the end of the transaction; then rows of the count tables, which only this function
-- writes.
-- SECURITY DEFINER: the role that serves requests may change the counts in no other way.
-- Plans: PostgreSQL cannot estimate the rows of a batch, and before the first ANALYZE it expects almost none. It would
-- then compare every stream of a batch with every aggregate type. enable_nestloop = off prevents that: a count of 30,000
-- streams of 300 types takes 0.8 s instead of 2.1 s.
CREATE OR REPLACE FUNCTION count_events(p_limit bigint) RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET enable_hashjoin = on
SET enable_nestloop = off
SET jit = off
AS $$
DECLARE
    list_length CONSTANT integer := 1000;

    v_after      bigint;
    v_after_time timestamptz;
    v_head       bigint;
    v_to         bigint;
    v_to_time    timestamptz;
    v_types      text[];
BEGIN
    IF coalesce(p_limit, 0) < 1 THEN
        RAISE EXCEPTION 'p_limit must be at least 1, and is %', coalesce(p_limit::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT s.as_of_position, s.as_of
      INTO v_after, v_after_time
      FROM statistics s
       FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    WITH summed AS (
        DELETE FROM snapshot_changes
        RETURNING aggregate_type, change
    )
    INSERT INTO snapshot_counts AS c (aggregate_type, snapshots)
    SELECT s.aggregate_type, sum(s.change)
      FROM summed s
     GROUP BY s.aggregate_type
        ON CONFLICT (aggregate_type) DO UPDATE
       SET snapshots = c.snapshots + excluded.snapshots;

    -- Times never go backwards along the log, so a range of times selects the partitions of a range of positions.
    SELECT l.global_position
      INTO v_head
      FROM last_event(v_after_time) AS l;
    IF v_head IS NULL OR v_head <= v_after THEN
        RETURN 0;
    END IF;
    v_to := least(v_head, v_after + p_limit);
    SELECT e.occurred_at
      INTO v_to_time
      FROM events e
     WHERE e.occurred_at >= v_after_time
       AND e.global_position <= v_to
     ORDER BY e.global_position DESC
     LIMIT 1;

    WITH batch AS MATERIALIZED (
        SELECT e.aggregate_type, e.aggregate_id, e.version, e.event_type, e.occurred_at, e.global_position
          FROM events e
         WHERE e.global_position > v_after
           AND e.global_position <= v_to
           AND e.occurred_at >= v_after_time
           AND e.occurred_at <= v_to_time
    ), events_counted AS (
        INSERT INTO event_counts AS c (aggregate_type, event_type, events, last_occurred_at)
        SELECT b.aggregate_type, b.event_type, count(*), max(b.occurred_at)
          FROM batch b
         GROUP BY b.aggregate_type, b.event_type
            ON CONFLICT (aggregate_type, event_type) DO UPDATE
           SET events = c.events + excluded.events,
               last_occurred_at = excluded.last_occurred_at
    ), streams_counted AS (
        INSERT INTO stream_counts AS c (aggregate_type, at_least, streams)
        SELECT b.aggregate_type, b.version, count(*)
          FROM batch b
         WHERE b.version IN (1, 10, 50, 100, 1000, 10000)
         GROUP BY b.aggregate_type, b.version
            ON CONFLICT (aggregate_type, at_least) DO UPDATE
           SET streams = c.streams + excluded.streams
    ), entry AS MATERIALIZED (
        -- The smallest version with which a stream of the type enters the list.
        SELECT t.aggregate_type,
               coalesce((SELECT l.version
                           FROM largest_aggregates l
                          WHERE l.aggregate_type = t.aggregate_type
                          ORDER BY l.version DESC, l.global_position
                         OFFSET list_length - 1
                          LIMIT 1), 0) + 1 AS version
          FROM (SELECT DISTINCT b.aggregate_type FROM batch b) AS t
    ), grown AS (
        SELECT b.aggregate_type, b.aggregate_id, max(b.version) AS version, max(b.global_position) AS global_position
          FROM batch b
         GROUP BY b.aggregate_type, b.aggregate_id
    ), ranked AS (
        SELECT g.*,
               row_number() OVER (
                   PARTITION BY g.aggregate_type
                   ORDER BY g.version DESC, g.global_position) AS rank
          FROM grown g
          JOIN entry
            ON entry.aggregate_type = g.aggregate_type
           AND entry.version <= g.version
    ), entered AS (
        INSERT INTO largest_aggregates AS l (aggregate_type, aggregate_id, version, global_position)
        SELECT r.aggregate_type, r.aggregate_id, r.version, r.global_position
          FROM ranked r
         WHERE r.rank <= list_length
            ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
           SET version = excluded.version,
               global_position = excluded.global_position
        RETURNING l.aggregate_type, xmax = 0 AS is_new
    )
    SELECT array_agg(DISTINCT e.aggregate_type)
      INTO v_types
      FROM entered e
     WHERE e.is_new;

    -- The rows are deleted by their ctid. In a join, PostgreSQL may list the rows of a type again for each of its rows.
    DELETE FROM largest_aggregates l
     WHERE l.ctid = ANY (ARRAY(
           SELECT surplus.place
             FROM unnest(v_types) AS t (aggregate_type)
            CROSS JOIN LATERAL (
                  SELECT r.ctid AS place
                    FROM largest_aggregates r
                   WHERE r.aggregate_type = t.aggregate_type
                   ORDER BY r.version DESC, r.global_position
                  OFFSET list_length) AS surplus));

    UPDATE statistics
       SET as_of_position = v_to,
           as_of = coalesce(v_to_time, v_after_time);
    RETURN v_head - v_to;
END
$$;

REVOKE ALL ON FUNCTION count_events FROM PUBLIC;
