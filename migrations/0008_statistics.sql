-- Statistics: counted along the log, so that a question about millions of streams costs a look at a few rows.
--
-- Appends touch none of these tables. Whoever counts goes on from where the last one stopped, one at a time.

SET LOCAL lock_timeout = '3s';

-- How far the log is counted; one row.
CREATE TABLE statistics (
    as_of_position bigint NOT NULL,
    as_of          timestamptz NOT NULL,
    only_row       boolean NOT NULL DEFAULT true,
    CONSTRAINT statistics_pkey PRIMARY KEY (only_row),
    CONSTRAINT statistics_one_row CHECK (only_row)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO statistics (as_of_position, as_of)
VALUES (0, '-infinity');

CREATE TABLE event_counts (
    aggregate_type   varchar(255) COLLATE "C" NOT NULL,
    event_type       varchar(255) COLLATE "C" NOT NULL,
    events           bigint NOT NULL,
    last_occurred_at timestamptz NOT NULL,
    CONSTRAINT event_counts_pkey PRIMARY KEY (aggregate_type, event_type)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_threshold = 1000);

-- How many streams have so many events or more: each of them had, once, an event of just that version.
CREATE TABLE stream_counts (
    aggregate_type varchar(255) COLLATE "C" NOT NULL,
    at_least       integer NOT NULL,
    streams        bigint NOT NULL,
    CONSTRAINT stream_counts_pkey PRIMARY KEY (aggregate_type, at_least)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_threshold = 1000);

-- The thousand largest streams of each type, exactly: every event says how large its stream is now, and a stream that
-- does not grow never comes to be larger than one that is in here. Of equal ones, those that were so large first.
CREATE TABLE largest_aggregates (
    aggregate_type  varchar(255) COLLATE "C" NOT NULL,
    aggregate_id    varchar(255) COLLATE "C" NOT NULL,
    version         integer NOT NULL,
    global_position bigint NOT NULL,
    CONSTRAINT largest_aggregates_pkey PRIMARY KEY (aggregate_type, aggregate_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_threshold = 1000);
CREATE INDEX largest_aggregates_of_type ON largest_aggregates (aggregate_type, version DESC, global_position);
CREATE INDEX largest_aggregates_of_all ON largest_aggregates (version DESC, global_position);

-- Snapshots are not in the log: a trigger notes each one that comes or goes, and counting adds the notes up. A counter
-- that the trigger itself updated would have all writers of a type's snapshots wait for each other.
CREATE TABLE snapshot_counts (
    aggregate_type varchar(255) COLLATE "C" NOT NULL,
    snapshots      bigint NOT NULL,
    CONSTRAINT snapshot_counts_pkey PRIMARY KEY (aggregate_type)
) WITH (fillfactor = 50);
CREATE TABLE snapshot_changes (
    aggregate_type varchar(255) COLLATE "C" NOT NULL,
    change         integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE FUNCTION note_snapshot_change() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM snapshot_counts;
        DELETE FROM snapshot_changes;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO snapshot_changes (aggregate_type, change)
        VALUES (NEW.aggregate_type, 1);
    ELSE
        INSERT INTO snapshot_changes (aggregate_type, change)
        VALUES (OLD.aggregate_type, -1);
    END IF;
    RETURN NULL;
END
$$;
-- A snapshot that replaces another one changes nothing.
CREATE TRIGGER snapshots_counted
    AFTER INSERT OR DELETE ON snapshots
    FOR EACH ROW EXECUTE FUNCTION note_snapshot_change();
CREATE TRIGGER snapshots_counted_anew
    AFTER TRUNCATE ON snapshots
    FOR EACH STATEMENT EXECUTE FUNCTION note_snapshot_change();
INSERT INTO snapshot_counts (aggregate_type, snapshots)
SELECT s.aggregate_type, count(*)
  FROM snapshots s
 GROUP BY s.aggregate_type;

-- Counts on along the log, at most p_most positions; how many are left to count. NULL: somebody else is counting.
--
-- Locks: the row of statistics, to the end of the transaction; then rows of the tables above, which nobody else writes.
-- SECURITY DEFINER: the role that serves counts, and may change a count in no other way.
CREATE FUNCTION count_events(p_most bigint) RETURNS bigint
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET enable_hashjoin = on
SET jit = off
AS $$
DECLARE
    kept CONSTANT integer := 1000;

    v_after      bigint;
    v_after_time timestamptz;
    v_head       bigint;
    v_to         bigint;
    v_to_time    timestamptz;
    v_types      text[];
BEGIN
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

    -- Times never go backwards along the log, so they name the months of a range of positions.
    SELECT e.global_position
      INTO v_head
      FROM events e
     WHERE e.occurred_at >= v_after_time
     ORDER BY e.global_position DESC
     LIMIT 1;
    IF v_head IS NULL OR v_head <= v_after THEN
        RETURN 0;
    END IF;
    v_to := least(v_head, v_after + p_most);
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
        -- How large a stream of the type has to be, at least, to come in.
        SELECT t.aggregate_type,
               coalesce((SELECT l.version
                           FROM largest_aggregates l
                          WHERE l.aggregate_type = t.aggregate_type
                          ORDER BY l.version DESC, l.global_position
                         OFFSET kept - 1
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
    ), come_in AS (
        INSERT INTO largest_aggregates AS l (aggregate_type, aggregate_id, version, global_position)
        SELECT r.aggregate_type, r.aggregate_id, r.version, r.global_position
          FROM ranked r
         WHERE r.rank <= kept
            ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
           SET version = excluded.version,
               global_position = excluded.global_position
        RETURNING l.aggregate_type, xmax = 0 AS is_new
    )
    SELECT array_agg(DISTINCT c.aggregate_type)
      INTO v_types
      FROM come_in c
     WHERE c.is_new;

    DELETE FROM largest_aggregates l
     USING unnest(v_types) AS t (aggregate_type)
     CROSS JOIN LATERAL (
           SELECT r.aggregate_id
             FROM largest_aggregates r
            WHERE r.aggregate_type = t.aggregate_type
            ORDER BY r.version DESC, r.global_position
           OFFSET kept) AS surplus
     WHERE l.aggregate_type = t.aggregate_type
       AND l.aggregate_id = surplus.aggregate_id;

    UPDATE statistics
       SET as_of_position = v_to,
           as_of = coalesce(v_to_time, v_after_time);
    RETURN v_head - v_to;
END
$$;

REVOKE ALL ON FUNCTION note_snapshot_change() FROM PUBLIC;
REVOKE ALL ON FUNCTION count_events(bigint) FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_reader') THEN
        GRANT SELECT ON
            statistics, event_counts, stream_counts, largest_aggregates, snapshot_counts, snapshot_changes
            TO annals_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT SELECT ON
            statistics, event_counts, stream_counts, largest_aggregates, snapshot_counts, snapshot_changes
            TO annals_app;
        GRANT EXECUTE ON FUNCTION count_events(bigint) TO annals_app;
    END IF;
END
$$;
