-- Creates the aggregates to load with direct SQL, with 150 events and a snapshot at version 100 each.
CREATE TABLE snapshots (
    aggregate_type varchar(255) NOT NULL,
    aggregate_id   varchar(255) NOT NULL,
    version        integer NOT NULL,
    state          jsonb NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
);
INSERT INTO snapshots (aggregate_type, aggregate_id, version, state)
SELECT 'Loaded', 'agg-' || n, 100, '{"order":"ord-000000000000","customer":"cus-000000000000","currency":"EUR","total":1234.56,"lines":[{"sku":"A-100001","quantity":2,"price":499.99},{"sku":"B-200002","quantity":1,"price":234.58}],"note":"leave it with the neighbours at number 12"}'
  FROM generate_series(1, 500) AS n;
INSERT INTO events (event_id, aggregate_type, aggregate_id, version, event_type, event_data, occurred_at)
SELECT gen_random_uuid(), s.aggregate_type, s.aggregate_id, v, 'OrderPlaced', s.state, now()
  FROM snapshots s, generate_series(1, 150) AS v;
ANALYZE;
