-- Prints the events of Axon Framework 4 in a JPA event store (domain_event_entry) as lines for `annals import`.
--
--     psql "$SOURCE_URL" -X -q -f axon.sql > events.ndjson && annals import --time=raise events.ndjson
--
-- The columns have the names of Spring Boot (snake case). The serializer of events must be Jackson: payloads of XStream
-- are XML, and are refused as invalid JSON. Payloads may be large objects (oid, the default of Hibernate), bytea, text,
-- json or jsonb. An event without an aggregate becomes a stream of its own, of the type `Message`. Ids may not contain a
-- slash, so `%` becomes `%25` and `/` becomes `%2F`. An event identifier that is not a UUID goes into the metadata.
-- In the metadata, traceId identifies the first message of the chain, and becomes correlation_id. correlationId
-- identifies the message that caused this one, and becomes causation_id. Only UUIDs become ids.
\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';
SET bytea_output = 'hex';

COPY (
    SELECT jsonb_build_object(
               'aggregate_type', coalesce(e.type, 'Message'),
               'aggregate_id',   replace(replace(e.aggregate_identifier, '%', '%25'), '/', '%2F'),
               'version',        e.sequence_number + 1,
               'event_id',       CASE WHEN e.event_identifier ~* u.pattern THEN e.event_identifier END,
               'event_type',     e.payload_type,
               'event_data',     coalesce(nullif(d.data, 'null'), '{}'),
               'metadata',       nullif(
                                     coalesce(nullif(d.metadata, 'null'), '{}')
                                     || CASE WHEN e.event_identifier ~* u.pattern THEN '{}'
                                             ELSE jsonb_build_object('event_identifier', e.event_identifier) END
                                     || CASE WHEN e.payload_revision IS NULL THEN '{}'
                                             ELSE jsonb_build_object('payload_revision', e.payload_revision) END,
                                     '{}'),
               'occurred_at',    to_char(e.time_stamp::timestamptz AT TIME ZONE 'UTC',
                                         'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'correlation_id', CASE WHEN d.metadata ->> 'traceId' ~* u.pattern
                                      THEN d.metadata ->> 'traceId' END,
               'causation_id',   CASE WHEN d.metadata ->> 'correlationId' ~* u.pattern
                                      THEN d.metadata ->> 'correlationId' END)
      FROM domain_event_entry e
     CROSS JOIN (SELECT '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' AS pattern) u
     CROSS JOIN LATERAL (
               SELECT CASE pg_typeof(e.payload)::text
                          WHEN 'oid' THEN convert_from(lo_get(e.payload::text::oid), 'UTF8')
                          WHEN 'bytea' THEN convert_from(decode(substr(e.payload::text, 3), 'hex'), 'UTF8')
                          ELSE e.payload::text
                      END::jsonb AS data,
                      CASE pg_typeof(e.meta_data)::text
                          WHEN 'oid' THEN convert_from(lo_get(e.meta_data::text::oid), 'UTF8')
                          WHEN 'bytea' THEN convert_from(decode(substr(e.meta_data::text, 3), 'hex'), 'UTF8')
                          ELSE e.meta_data::text
                      END::jsonb AS metadata
           ) d
     ORDER BY e.global_index
    -- The text format would double the backslashes. JSON contains neither of these two characters, so nothing is quoted.
) TO STDOUT WITH (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
