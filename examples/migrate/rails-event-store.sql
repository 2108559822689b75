-- Prints the events of Rails Event Store (event_store_events, version 2) as lines for `annals import`.
--
--     psql "$SOURCE_URL" -X -q -f rails-event-store.sql > events.ndjson && annals import --time=raise events.ndjson
--
-- An event may be in several streams. It becomes an event of the first one that is not a link of the library (`$by_…`).
-- The stream `Order$123` becomes the aggregate 123 of the type `Order`, as the library's AggregateRoot names them; a
-- stream without `$` gets the id `_`. An event without a stream gets one of its own, of the type `Event`. Ids may not
-- contain a slash, so `%` becomes `%25` and `/` becomes `%2F`. Columns of the types bytea, json and jsonb are read, if
-- the serializer writes JSON. If it writes YAML, which is the default for bytea, convert the events with Ruby first.
\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';
SET bytea_output = 'hex';

COPY (
    SELECT jsonb_build_object(
               'aggregate_type', coalesce(split_part(s.stream, '$', 1), 'Event'),
               'aggregate_id',   CASE
                                     WHEN s.stream IS NULL THEN e.event_id::text
                                     WHEN s.stream LIKE '%$_%'
                                     THEN replace(replace(substr(s.stream, strpos(s.stream, '$') + 1), '%', '%25'),
                                                  '/', '%2F')
                                     ELSE '_'
                                 END,
               'event_id',       e.event_id,
               'event_type',     e.event_type,
               'event_data',     coalesce(nullif(d.data, 'null'), '{}'),
               'metadata',       nullif(
                                     coalesce(nullif(d.metadata, 'null'), '{}') - c.moved
                                     || CASE WHEN e.valid_at IS NULL THEN '{}'
                                             ELSE jsonb_build_object('valid_at', e.valid_at) END,
                                     '{}'),
               'occurred_at',    to_char(e.created_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'correlation_id', CASE WHEN 'correlation_id' = ANY (c.moved) THEN d.metadata ->> 'correlation_id' END,
               'causation_id',   CASE WHEN 'causation_id' = ANY (c.moved) THEN d.metadata ->> 'causation_id' END)
      FROM event_store_events e
      LEFT JOIN LATERAL (
               SELECT l.stream
                 FROM event_store_events_in_streams l
                WHERE l.event_id = e.event_id
                  AND l.stream NOT LIKE '$%'
                ORDER BY l.id
                LIMIT 1
           ) s ON true
     CROSS JOIN LATERAL (
               -- bytea is printed as \x and hexadecimal digits, and no JSON begins with a backslash.
               SELECT CASE
                          WHEN starts_with(e.data::text, '\x')
                          THEN convert_from(decode(substr(e.data::text, 3), 'hex'), 'UTF8')::jsonb
                          ELSE e.data::text::jsonb
                      END AS data,
                      CASE
                          WHEN starts_with(e.metadata::text, '\x')
                          THEN convert_from(decode(substr(e.metadata::text, 3), 'hex'), 'UTF8')::jsonb
                          ELSE e.metadata::text::jsonb
                      END AS metadata
           ) d
     CROSS JOIN LATERAL (
               -- The members of the metadata that are UUIDs, and move to the members of the event.
               SELECT array(SELECT i.name
                              FROM unnest(ARRAY['correlation_id', 'causation_id']) AS i(name)
                             WHERE d.metadata ->> i.name ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') AS moved
           ) c
     ORDER BY e.id
    -- The text format would double the backslashes. JSON contains neither of these two characters, so nothing is quoted.
) TO STDOUT WITH (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
