-- Creates the table of events of an application without Annals, with the keys and indexes that it needs.
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
CREATE INDEX idx_events_type ON events (event_type);
CREATE INDEX idx_events_occurred ON events (occurred_at);
