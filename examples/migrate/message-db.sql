-- Prints the messages of message-db (message_store.messages, version 1.3) as lines for `annals import`.
--
--     psql "$SOURCE_URL" -X -q -f message-db.sql > events.ndjson && annals import --time=raise events.ndjson
--
-- The stream `order-123` becomes the aggregate 123 of the type `order`. A stream without an id gets the id `_`. Ids may
-- not contain a slash, so `%` becomes `%25` and `/` becomes `%2F`. Annals does not store null data: it becomes {}.
\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';

COPY (
    SELECT jsonb_build_object(
               'aggregate_type', split_part(m.stream_name, '-', 1),
               'aggregate_id',   coalesce(nullif(replace(replace(s.entity_id, '%', '%25'), '/', '%2F'), ''), '_'),
               'version',        m.position + 1,
               'event_id',       m.id,
               'event_type',     m.type,
               'event_data',     coalesce(nullif(m.data, 'null'), '{}'),
               'metadata',       CASE coalesce(jsonb_typeof(m.metadata), 'null')
                                     WHEN 'object' THEN m.metadata
                                     WHEN 'null' THEN NULL
                                     ELSE jsonb_build_object('metadata', m.metadata)
                                 END,
               'occurred_at',    to_char(m.time, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
      FROM message_store.messages m
     CROSS JOIN LATERAL (
               SELECT CASE
                          WHEN m.stream_name LIKE '%-%' THEN substr(m.stream_name, strpos(m.stream_name, '-') + 1)
                      END AS entity_id
           ) s
     ORDER BY m.global_position
    -- The text format would double the backslashes. JSON contains neither of these two characters, so nothing is quoted.
) TO STDOUT WITH (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
