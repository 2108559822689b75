-- Notes the events of an imported stream that an imported $erased event names as erased. The events themselves were
-- imported without the erased content. A repeated call changes nothing.
--
--   p_source                           the number of the erasure in the log from which the events were exported. It has
--                                      this number here, too, or the next one if another erasure has it.
--   p_aggregate_type, p_aggregate_id   the stream
--   p_versions, p_members              as in the tables erased_streams and erased_events
--   p_version, p_global_position       the place of the $erased event
--
-- Locks: erasures in SHARE ROW EXCLUSIVE mode; ROW EXCLUSIVE on event_ids.
-- Only the owner may call it.
CREATE OR REPLACE FUNCTION import_erasure(
    p_source bigint,
    p_aggregate_type text,
    p_aggregate_id text,
    p_versions jsonb,
    p_members text[],
    p_version integer,
    p_global_position bigint
)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_erasure bigint;
BEGIN
    LOCK TABLE erasures IN SHARE ROW EXCLUSIVE MODE;
    -- The event was imported before, or appended by an erasure of this log.
    IF EXISTS (
       SELECT
         FROM erased_streams s
        WHERE s.aggregate_type = p_aggregate_type
          AND s.aggregate_id = p_aggregate_id
          AND s.announced_version = p_version) THEN
        RETURN;
    END IF;
    -- Erasures of different logs can have the same number.
    SELECT x.erasure
      INTO v_erasure
      FROM erasures x
     WHERE x.request -> 'imported' = to_jsonb(p_source)
       AND x.request -> 'members' = coalesce(to_jsonb(p_members), 'null');
    IF NOT FOUND THEN
        v_erasure := CASE
            WHEN EXISTS (SELECT FROM erasures x WHERE x.erasure = p_source) THEN nextval('erasures_erasure_seq')
            ELSE p_source
        END;
        PERFORM setval(
            'erasures_erasure_seq',
            greatest(v_erasure, coalesce(pg_sequence_last_value('erasures_erasure_seq'), 1)));
        INSERT INTO erasures (
               erasure, reason, request, aggregate_types, events, streams, snapshots, announced_position, hidden_at,
               removed_at)
        VALUES (v_erasure, 'imported with its events',
                jsonb_build_object('imported', p_source, 'members', p_members), '{}', 0, 0, 0, p_global_position,
                clock_timestamp(), clock_timestamp());
    END IF;

    INSERT INTO erased_streams (aggregate_type, aggregate_id, erasure, versions, announced_version)
    VALUES (p_aggregate_type, p_aggregate_id, v_erasure, p_versions, p_version)
        ON CONFLICT DO NOTHING;
    INSERT INTO erased_events (global_position, erasure, event_id, occurred_at, members)
    SELECT e.global_position, v_erasure, e.event_id, e.occurred_at, p_members
      FROM jsonb_array_elements(p_versions) AS r (range)
      JOIN events e
        ON e.version BETWEEN (r.range ->> 0)::integer AND (r.range ->> 1)::integer
     WHERE e.aggregate_type = p_aggregate_type
       AND e.aggregate_id = p_aggregate_id
       AND e.event_type <> '$erased'
        ON CONFLICT DO NOTHING;
    PERFORM set_config('annals.erasing', 'on', true);
    UPDATE event_ids AS k
       SET content_hash = 0
      FROM erased_events d
     WHERE d.erasure = v_erasure
       AND k.event_id = d.event_id
       AND k.content_hash <> 0;
    PERFORM set_config('annals.erasing', 'off', true);
    INSERT INTO erasure_months AS m (erasure, starts_at, events, archived, removed_at)
    SELECT v_erasure, p.starts_at, count(*), false, clock_timestamp()
      FROM erased_events d
      JOIN partitions p
        ON p.starts_at <= d.occurred_at
       AND p.ends_at > d.occurred_at
     WHERE d.erasure = v_erasure
     GROUP BY p.starts_at
        ON CONFLICT (erasure, starts_at) DO UPDATE
       SET events = excluded.events;
    UPDATE erasures AS x
       SET events = (SELECT count(*) FROM erased_events d WHERE d.erasure = v_erasure),
           streams = (SELECT count(*) FROM erased_streams s WHERE s.erasure = v_erasure),
           aggregate_types = ARRAY(
               SELECT DISTINCT s.aggregate_type::text FROM erased_streams s WHERE s.erasure = v_erasure),
           announced_position = greatest(x.announced_position, p_global_position)
     WHERE x.erasure = v_erasure;
END
$$;

REVOKE ALL ON FUNCTION import_erasure FROM PUBLIC;
