-- Prints a table of events without positions as lines for `annals import`. The columns are those of many services:
-- event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, occurred_at, correlation_id and
-- causation_id. Replace the names by those of your table.
--
--     psql "$SOURCE_URL" -X -q -f own-table.sql > events.ndjson && annals import --time=raise events.ndjson
--
-- Such a table has no order over all streams, and the times of a stream may run against its versions, because the
-- sessions of an application commit in another order than they read the clock. So each event is ordered by the latest
-- time of its stream up to its version. So versions ascend within each stream, and times ascend where versions allow it.
\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';

COPY (
    SELECT jsonb_build_object(
               'aggregate_type', e.aggregate_type,
               'aggregate_id',   replace(replace(e.aggregate_id, '%', '%25'), '/', '%2F'),
               'version',        e.version,
               'event_id',       e.event_id,
               'event_type',     e.event_type,
               'event_data',     coalesce(nullif(e.event_data, 'null'), '{}'),
               'metadata',       CASE coalesce(jsonb_typeof(e.metadata), 'null')
                                     WHEN 'object' THEN e.metadata
                                     WHEN 'null' THEN NULL
                                     ELSE jsonb_build_object('metadata', e.metadata)
                                 END,
               'occurred_at',    to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'correlation_id', e.correlation_id,
               'causation_id',   e.causation_id)
      FROM events e
     ORDER BY max(e.occurred_at) OVER (PARTITION BY e.aggregate_type, e.aggregate_id ORDER BY e.version),
              e.aggregate_type, e.aggregate_id, e.version
    -- The text format would double the backslashes. JSON contains neither of these two characters, so nothing is quoted.
) TO STDOUT WITH (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
