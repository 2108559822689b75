-- The tables that the recipe for Rails Event Store reads, with the columns of its version 2 and payloads of type json,
-- whose text may have line breaks.
CREATE TABLE event_store_events (
    id         bigserial PRIMARY KEY,
    event_id   uuid NOT NULL UNIQUE,
    event_type varchar NOT NULL,
    metadata   json,
    data       json NOT NULL,
    created_at timestamp(6) NOT NULL,
    valid_at   timestamp(6)
);

CREATE TABLE event_store_events_in_streams (
    id         bigserial PRIMARY KEY,
    stream     varchar NOT NULL,
    position   integer,
    event_id   uuid NOT NULL REFERENCES event_store_events (event_id),
    created_at timestamp(6) NOT NULL,
    UNIQUE (stream, position),
    UNIQUE (stream, event_id)
);

INSERT INTO event_store_events (event_id, event_type, metadata, data, created_at, valid_at) VALUES
    ('00000000-0000-4000-8000-000000000001', 'Sales::OrderPlaced',
     '{"correlation_id": "00000000-0000-4000-8000-00000000000c", "remote_ip": "::1", "types": {"path": "String"}}',
     E'{\n  "path": "C:\\\\temp",\n  "total": "42.50"\n}', '2024-03-01 10:00:00.25', NULL),
    ('00000000-0000-4000-8000-000000000002', 'Sales::OrderPaid',
     '{"correlation_id": "not a uuid", "causation_id": "00000000-0000-4000-8000-000000000001"}', '{"by": null}',
     '2024-03-01 09:00:00', '2024-02-01 00:00:00'),
    ('00000000-0000-4000-8000-000000000003', 'Noted', NULL, 'null', '2024-03-01 10:00:01', NULL),
    ('00000000-0000-4000-8000-000000000004', 'Imported', '{}', '{"text": "\"\\\n"}', '2024-03-01 10:00:01', NULL);

INSERT INTO event_store_events_in_streams (stream, position, event_id, created_at) VALUES
    ('$by_type_Sales::OrderPlaced', NULL, '00000000-0000-4000-8000-000000000001', '2024-03-01 10:00:00.25'),
    ('Sales::Order$1/2', 0, '00000000-0000-4000-8000-000000000001', '2024-03-01 10:00:00.25'),
    ('Customer$7', NULL, '00000000-0000-4000-8000-000000000001', '2024-03-01 10:00:00.25'),
    ('Sales::Order$1/2', 1, '00000000-0000-4000-8000-000000000002', '2024-03-01 10:00:00.25'),
    ('notes', NULL, '00000000-0000-4000-8000-000000000003', '2024-03-01 10:00:01');
