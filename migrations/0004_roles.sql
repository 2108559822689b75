-- Roles. annals_app serves requests: it reads everything, keeps snapshots, reducers and projection positions, and
-- writes events through append_events alone. annals_reader reads. The owner, who runs this, migrates and keeps months.
--
-- A login that may not create roles (a managed database with one user) gets none, and works all the same.
DO $$
BEGIN
    IF (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
        -- Roles belong to the cluster: another database's migration may be making them at this moment.
        BEGIN
            CREATE ROLE annals_app NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
        BEGIN
            CREATE ROLE annals_reader NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END IF;
    -- The login serves as annals_app. A superuser may anyway; another one may grant the role that it has just made.
    IF NOT pg_has_role(current_user, (SELECT oid FROM pg_roles WHERE rolname = 'annals_app'), 'USAGE') THEN
        BEGIN
            GRANT annals_app TO CURRENT_USER;
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION create_event_month(timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION append_events_locked FROM PUBLIC;
REVOKE ALL ON PROCEDURE append_events FROM PUBLIC;

DO $$
DECLARE
    v_schema text := quote_ident(current_schema());
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_reader') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO annals_reader', v_schema);
        GRANT SELECT ON
            events, streams, event_ids, partitions, epochs, snapshots, reducers, projection_positions
            TO annals_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO annals_app', v_schema);
        GRANT SELECT ON
            events, streams, event_ids, partitions, epochs, snapshots, reducers, projection_positions,
            annals_migrations
            TO annals_app;
        GRANT INSERT, UPDATE, DELETE ON snapshots, reducers, projection_positions TO annals_app;
        GRANT USAGE ON SEQUENCE reducer_revisions TO annals_app;
        GRANT EXECUTE ON FUNCTION create_event_month(timestamptz) TO annals_app;
        GRANT EXECUTE ON FUNCTION append_events_locked TO annals_app;
        GRANT EXECUTE ON PROCEDURE append_events TO annals_app;
    END IF;
END
$$;
