-- The tables that the recipe for Marten reads, with string ids, several tenants and the optional columns of metadata
-- except user_name.
CREATE TABLE mt_streams (
    id               varchar NOT NULL,
    type             varchar,
    version          bigint,
    timestamp        timestamptz NOT NULL DEFAULT now(),
    snapshot         jsonb,
    snapshot_version integer,
    created          timestamptz NOT NULL DEFAULT now(),
    tenant_id        varchar NOT NULL DEFAULT '*DEFAULT*',
    is_archived      boolean DEFAULT false,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE mt_events (
    seq_id         bigint PRIMARY KEY,
    id             uuid NOT NULL,
    stream_id      varchar NOT NULL,
    version        bigint NOT NULL,
    data           jsonb NOT NULL,
    type           varchar(500) NOT NULL,
    timestamp      timestamptz NOT NULL DEFAULT now(),
    tenant_id      varchar DEFAULT '*DEFAULT*',
    mt_dotnet_type varchar,
    correlation_id varchar,
    causation_id   varchar,
    headers        jsonb,
    is_archived    boolean DEFAULT false
);

INSERT INTO mt_streams (id, type, version, tenant_id) VALUES
    ('ord/1', 'order', 2, '*DEFAULT*'), ('ord/1', 'order', 1, 'blue'), ('x', NULL, 1, '*DEFAULT*');

-- The numbers have gaps, because rolled back transactions take some.
INSERT INTO mt_events VALUES
    (3, '00000000-0000-4000-8000-000000000001', 'ord/1', 1, '{"Path": "C:\\temp", "Total": 0.10}', 'order_placed',
     '2024-03-01 10:00:00.000001+00', '*DEFAULT*', 'Shop.OrderPlaced, Shop', '00000000-0000-4000-8000-00000000000C', NULL,
     '{"user": "\"é\""}', false),
    (4, '00000000-0000-4000-8000-000000000002', 'ord/1', 1, '{}', 'order_placed', '2024-03-01 09:00:00+00', 'blue',
     'Shop.OrderPlaced, Shop', 'req-77', '', NULL, true),
    (9, '00000000-0000-4000-8000-000000000003', 'ord/1', 2, 'null', 'order_paid', '2024-03-01 10:00:05+00', '*DEFAULT*',
     NULL, NULL, '00000000-0000-4000-8000-000000000001', 'null', false),
    (10, '00000000-0000-4000-8000-000000000004', 'x', 1, '"\\n"', 'noted', '2024-03-01 10:00:04+00', '*DEFAULT*', NULL,
     NULL, 'job 5', '{"a": null}', false);
