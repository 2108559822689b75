-- The tables that the recipe for commanded/eventstore reads, with the columns of its schema 1.3 and the default type of
-- payloads, bytea. The second stream is linked to, and one was deleted softly.
CREATE TABLE streams (
    stream_id      bigserial PRIMARY KEY,
    stream_uuid    text NOT NULL UNIQUE,
    stream_version bigint NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);

CREATE TABLE events (
    event_id       uuid PRIMARY KEY,
    event_type     text NOT NULL,
    causation_id   uuid,
    correlation_id uuid,
    data           bytea NOT NULL,
    metadata       bytea,
    created_at     timestamptz NOT NULL
);

CREATE TABLE stream_events (
    event_id                uuid NOT NULL REFERENCES events,
    stream_id               bigint NOT NULL REFERENCES streams,
    stream_version          bigint NOT NULL,
    original_stream_id      bigint REFERENCES streams,
    original_stream_version bigint,
    PRIMARY KEY (event_id, stream_id),
    UNIQUE (stream_id, stream_version)
);

INSERT INTO streams (stream_id, stream_uuid, stream_version, deleted_at) VALUES
    (0, '$all', 4, NULL), (1, 'order-1/2', 2, NULL), (2, '0198b3a0-0000-7000-8000-00000000000a', 1, NULL),
    (3, 'links', 1, NULL), (4, 'cart-9', 1, '2024-03-02 00:00:00Z');

INSERT INTO events VALUES
    ('00000000-0000-4000-8000-000000000001', 'Elixir.Shop.OrderPlaced', NULL, '00000000-0000-4000-8000-00000000000c',
     convert_to('{"path": "C:\\temp", "lines": "a\nb", "total": 42.50}', 'UTF8'),
     convert_to('{"user": "é"}', 'UTF8'), '2024-03-01 10:00:00+00'),
    ('00000000-0000-4000-8000-000000000002', 'Elixir.Shop.OrderPaid', '00000000-0000-4000-8000-000000000001',
     '00000000-0000-4000-8000-00000000000c', convert_to('{}', 'UTF8'), NULL, '2024-03-01 11:00:00+02'),
    ('00000000-0000-4000-8000-000000000003', 'created', NULL, NULL, convert_to('null', 'UTF8'),
     convert_to(E'{\n  "spread": "over lines"\n}', 'UTF8'), '2024-03-01 10:00:02+00'),
    ('00000000-0000-4000-8000-000000000004', 'Elixir.Shop.CartFilled', NULL, NULL, convert_to('[]', 'UTF8'),
     convert_to('7', 'UTF8'), '2024-03-01 10:00:01.5+00');

-- The order of $all is the global one. The fourth event is a member of the stream `links`, too.
INSERT INTO stream_events VALUES
    ('00000000-0000-4000-8000-000000000001', 0, 1, 1, 1), ('00000000-0000-4000-8000-000000000001', 1, 1, 1, 1),
    ('00000000-0000-4000-8000-000000000002', 0, 2, 1, 2), ('00000000-0000-4000-8000-000000000002', 1, 2, 1, 2),
    ('00000000-0000-4000-8000-000000000003', 0, 3, 2, 1), ('00000000-0000-4000-8000-000000000003', 2, 1, 2, 1),
    ('00000000-0000-4000-8000-000000000004', 0, 4, 4, 1), ('00000000-0000-4000-8000-000000000004', 4, 1, 4, 1),
    ('00000000-0000-4000-8000-000000000004', 3, 1, 4, 1);
