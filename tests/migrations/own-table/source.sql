-- A table of events without positions, as many services have one. The times of the first stream run against its versions,
-- and rows are not in the order in which they happened.
CREATE TABLE events (
    event_id       uuid PRIMARY KEY,
    aggregate_type varchar(255) NOT NULL,
    aggregate_id   varchar(255) NOT NULL,
    version        integer NOT NULL,
    event_type     varchar(255) NOT NULL,
    event_data     jsonb NOT NULL,
    metadata       jsonb,
    occurred_at    timestamptz NOT NULL,
    correlation_id uuid,
    causation_id   uuid,
    UNIQUE (aggregate_type, aggregate_id, version)
);

INSERT INTO events VALUES
    ('00000000-0000-4000-8000-000000000005', 'Order', 'ord-1', 3, 'OrderShipped', '{"\\": "\"\n"}', '{"n": 1.50}',
     '2024-03-01 10:00:09+00', NULL, '00000000-0000-4000-8000-000000000003'),
    ('00000000-0000-4000-8000-000000000001', 'Order', 'ord-1', 1, 'OrderPlaced', '{"path": "C:\\temp"}', NULL,
     '2024-03-01 10:00:05.000001+00', '00000000-0000-4000-8000-00000000000c', NULL),
    ('00000000-0000-4000-8000-000000000003', 'Order', 'ord-1', 2, 'OrderPaid', 'null', 'null', '2024-03-01 10:00:02+00',
     '00000000-0000-4000-8000-00000000000c', '00000000-0000-4000-8000-000000000001'),
    ('00000000-0000-4000-8000-000000000002', 'Cart', 'a/b 100%', 1, 'CartFilled', '[]', '"odd"',
     '2024-03-01 10:00:03+00', NULL, NULL),
    ('00000000-0000-4000-8000-000000000004', 'Cart', 'a/b 100%', 2, 'CartEmptied', '{}', '{}',
     '2024-03-01 12:00:05.000001+02', NULL, NULL);
