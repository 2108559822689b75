-- Prints the events of Marten (.NET, mt_events of version 7 and 8) as lines for `annals import`.
--
--     psql "$SOURCE_URL" -X -q -f marten.sql > events.ndjson && annals import --time=raise events.ndjson
--
-- The aggregate type is the type of the stream (mt_streams.type), or `Stream` if it has none. Archived events are
-- included. Ids may not contain a slash, so `%` becomes `%25` and `/` becomes `%2F`. The optional columns
-- correlation_id, causation_id, headers and user_name are read where the table has them. An id that is not a UUID goes
-- into the metadata. With several tenants, the tenant is a part of the aggregate id (`tenant:id`). With another schema
-- than public:  SET search_path = '…';
\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';

COPY (
    SELECT jsonb_build_object(
               'aggregate_type', coalesce(s.type, 'Stream'),
               'aggregate_id',   CASE WHEN e.tenant_id <> '*DEFAULT*' THEN e.tenant_id || ':' ELSE '' END
                                 || replace(replace(e.stream_id::text, '%', '%25'), '/', '%2F'),
               'version',        e.version,
               'event_id',       e.id,
               'event_type',     e.type,
               'event_data',     coalesce(nullif(e.data, 'null'), '{}'),
               'metadata',       nullif(
                                     coalesce(nullif(o.row -> 'headers', 'null'), '{}')
                                     || CASE WHEN c.correlation_id IS NULL AND o.row ->> 'correlation_id' <> ''
                                             THEN jsonb_build_object('correlation_id', o.row -> 'correlation_id')
                                             ELSE '{}' END
                                     || CASE WHEN c.causation_id IS NULL AND o.row ->> 'causation_id' <> ''
                                             THEN jsonb_build_object('causation_id', o.row -> 'causation_id')
                                             ELSE '{}' END
                                     || CASE WHEN o.row ->> 'user_name' <> ''
                                             THEN jsonb_build_object('user_name', o.row -> 'user_name')
                                             ELSE '{}' END,
                                     '{}'),
               'occurred_at',    to_char(e.timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'correlation_id', c.correlation_id,
               'causation_id',   c.causation_id)
      FROM mt_events e
      JOIN mt_streams s ON s.id = e.stream_id AND s.tenant_id = e.tenant_id
     -- The row as JSON, because a table without an optional column has no such name.
     CROSS JOIN LATERAL (SELECT to_jsonb(e) AS row) o
     CROSS JOIN LATERAL (
               SELECT CASE WHEN o.row ->> 'correlation_id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                           THEN o.row ->> 'correlation_id' END AS correlation_id,
                      CASE WHEN o.row ->> 'causation_id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                           THEN o.row ->> 'causation_id' END AS causation_id
           ) c
     ORDER BY e.seq_id
    -- The text format would double the backslashes. JSON contains neither of these two characters, so nothing is quoted.
) TO STDOUT WITH (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
