-- The table that the recipe for message-db reads, with the columns of its version 1.3, and messages that are hard to
-- move.
CREATE SCHEMA message_store;

CREATE TABLE message_store.messages (
    global_position bigserial PRIMARY KEY,
    position        bigint NOT NULL,
    time            timestamp NOT NULL,
    stream_name     text NOT NULL,
    type            text NOT NULL,
    data            jsonb,
    metadata        jsonb,
    id              uuid NOT NULL
);

INSERT INTO message_store.messages (position, time, stream_name, type, data, metadata, id) VALUES
    (0, '2024-03-01 10:00:00.123456', 'order-1', 'OrderPlaced',
     '{"path": "C:\\temp\\new", "quote": "\"", "lines": "a\nb\tc", "total": 12345678901234567890.50, "none": null}',
     '{"by": null}', '00000000-0000-4000-8000-000000000001'),
    (1, '2024-03-01 09:59:59', 'order-1', 'OrderPaid', NULL, NULL, '00000000-0000-4000-8000-000000000002'),
    (0, '2024-03-01 10:00:01', 'account:command-a/b+c', 'Deposit', 'null', '["odd"]',
     '00000000-0000-4000-8000-000000000003'),
    (0, '2024-03-01 10:00:01', 'settings', 'Changed', '[1, {"\u2028": "\\u0041"}]', 'null',
     '00000000-0000-4000-8000-000000000004'),
    (0, '2024-03-01 10:00:02', 'order-é 50%-x-y', 'OrderPlaced', '"text"', '{}', '00000000-0000-4000-8000-000000000005'),
    (2, '2024-02-28 00:00:00', 'order-1', 'OrderShipped', '42', '{"note": "\\"}', '00000000-0000-4000-8000-000000000006');
