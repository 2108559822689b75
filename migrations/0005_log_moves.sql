-- The move of the log to another database: `annals move`. docs/how-to/move-a-log.md explains it.
--
-- Locks: none on tables that are in use.

-- At most one row: the move that is in progress, or that is complete on the source.
CREATE TABLE log_moves (
    move_id      uuid NOT NULL,
    -- Which side this database is: source or target.
    side         text NOT NULL,
    -- The address of the other database, without a password.
    other        text NOT NULL,
    began_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Since when this database refuses all writes; NULL while the source is copied.
    frozen_at    timestamptz,
    -- When the target took over; only on the source.
    completed_at timestamptz,
    only_row     boolean NOT NULL DEFAULT true,
    CONSTRAINT log_moves_pkey PRIMARY KEY (only_row),
    CONSTRAINT log_moves_one_row CHECK (only_row),
    CONSTRAINT log_moves_side CHECK (side IN ('source', 'target'))
);

-- The roles may be missing: see 0001_schema.sql.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_reader') THEN
        GRANT SELECT ON log_moves TO annals_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT SELECT ON log_moves TO annals_app;
    END IF;
END
$$;
