-- How far the log was verified; one row. `annals verify --since-last` goes on from there.

CREATE TABLE verification (
    verified_position bigint NOT NULL,
    epoch             integer NOT NULL,
    verified_at       timestamptz NOT NULL,
    only_row          boolean NOT NULL DEFAULT true,
    CONSTRAINT verification_pkey PRIMARY KEY (only_row),
    CONSTRAINT verification_one_row CHECK (only_row)
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_reader') THEN
        GRANT SELECT ON verification TO annals_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT SELECT ON verification TO annals_app;
    END IF;
END
$$;
