-- Prints the events of commanded/eventstore (Elixir, schema 1.3) as lines for `annals import`.
--
--     psql "$SOURCE_URL" -X -q -f commanded.sql > events.ndjson && annals import --time=raise events.ndjson
--
-- The events are in the order of the stream $all, without links. The stream `order-123` becomes the aggregate 123 of
-- the type `order`; a stream whose name is a UUID has no type, and gets `Stream`. Ids may not contain a slash, so `%`
-- becomes `%25` and `/` becomes `%2F`. Columns of the types bytea, json and jsonb are read, if the serializer writes
-- JSON. With another schema than public:  SET search_path = '…';
\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';
SET bytea_output = 'hex';

COPY (
    SELECT jsonb_build_object(
               'aggregate_type', n.kind,
               'aggregate_id',   replace(replace(n.name, '%', '%25'), '/', '%2F'),
               'version',        a.original_stream_version,
               'event_id',       e.event_id,
               'event_type',     regexp_replace(e.event_type, '^Elixir\.', ''),
               'event_data',     coalesce(nullif(d.data, 'null'), '{}'),
               'metadata',       CASE coalesce(jsonb_typeof(d.metadata), 'null')
                                     WHEN 'object' THEN d.metadata
                                     WHEN 'null' THEN NULL
                                     ELSE jsonb_build_object('metadata', d.metadata)
                                 END,
               'occurred_at',    to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'correlation_id', e.correlation_id,
               'causation_id',   e.causation_id)
      FROM stream_events a
      JOIN events e ON e.event_id = a.event_id
      JOIN streams s ON s.stream_id = a.original_stream_id
     CROSS JOIN LATERAL (
               SELECT s.stream_uuid ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                      OR s.stream_uuid NOT LIKE '_%-_%' AS is_untyped
           ) u
     CROSS JOIN LATERAL (
               SELECT CASE WHEN u.is_untyped THEN 'Stream' ELSE split_part(s.stream_uuid, '-', 1) END AS kind,
                      CASE
                          WHEN u.is_untyped THEN s.stream_uuid
                          ELSE substr(s.stream_uuid, strpos(s.stream_uuid, '-') + 1)
                      END AS name
           ) n
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
     WHERE a.stream_id = 0
     ORDER BY a.stream_version
    -- The text format would double the backslashes. JSON contains neither of these two characters, so nothing is quoted.
) TO STDOUT WITH (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
