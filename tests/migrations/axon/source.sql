-- The table that the recipe for Axon Framework reads, as Hibernate creates it with the names of Spring Boot: payloads are
-- large objects.
CREATE TABLE domain_event_entry (
    global_index         bigint PRIMARY KEY,
    event_identifier     varchar(255) NOT NULL UNIQUE,
    meta_data            oid,
    payload              oid NOT NULL,
    payload_revision     varchar(255),
    payload_type         varchar(255) NOT NULL,
    time_stamp           varchar(255) NOT NULL,
    aggregate_identifier varchar(255) NOT NULL,
    sequence_number      bigint NOT NULL,
    type                 varchar(255),
    UNIQUE (aggregate_identifier, sequence_number)
);

INSERT INTO domain_event_entry VALUES
    (1, '00000000-0000-4000-8000-000000000001',
     lo_from_bytea(0, convert_to('{"traceId": "00000000-0000-4000-8000-00000000000c", "correlationId": "x"}', 'UTF8')),
     lo_from_bytea(0, convert_to('{"path": "C:\\temp", "total": 42.50}', 'UTF8')), '2.0', 'shop.OrderPlaced',
     '2024-03-01T10:00:00.123Z', 'ord/1', 0, 'Order'),
    (2, '00000000-0000-4000-8000-000000000002', NULL, lo_from_bytea(0, convert_to('null', 'UTF8')), NULL,
     'shop.OrderPaid', '2024-03-01T09:00:00Z', 'ord/1', 1, 'Order'),
    (52, 'odd id', lo_from_bytea(0, convert_to('{}', 'UTF8')),
     lo_from_bytea(0, convert_to('{"text": "a\nb \"é\""}', 'UTF8')), NULL, 'shop.Noticed',
     '2024-03-01T10:00:00.123456Z', 'odd id', 0, NULL),
    (53, '00000000-0000-4000-8000-000000000003',
     lo_from_bytea(0, convert_to('{"correlationId": "00000000-0000-4000-8000-000000000001"}', 'UTF8')),
     lo_from_bytea(0, convert_to('[]', 'UTF8')), NULL, 'shop.OrderShipped', '2024-03-01T10:00:00Z', 'ord/1', 2, 'Order');
