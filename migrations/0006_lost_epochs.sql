-- Epochs of histories that were lost. A process that has served an epoch which the log does not have, because another server
-- was promoted instead, records it here. A cursor of the epoch then gets the position up to which both histories are equal.
--
-- Locks: none on tables that are in use.
CREATE TABLE lost_epochs (
    epoch          integer NOT NULL,
    -- Positions before this one are those of the former epoch.
    first_position bigint NOT NULL,
    former_epoch   integer NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT lost_epochs_pkey PRIMARY KEY (epoch),
    CONSTRAINT lost_epochs_position_in_range CHECK (first_position >= 1),
    CONSTRAINT lost_epochs_in_order CHECK (former_epoch < epoch)
);

-- The roles may be missing: see 0001_schema.sql. The service adds rows through a function.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_reader') THEN
        GRANT SELECT ON lost_epochs TO annals_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT SELECT ON lost_epochs TO annals_app;
    END IF;
END
$$;
