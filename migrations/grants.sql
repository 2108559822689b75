-- The right to execute functions. It is applied after the functions whenever one of their files was applied.
--
-- Each function file revokes the default right of PUBLIC where the function must not be called by everyone. The roles
-- may be missing: see 0001_schema.sql.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT EXECUTE ON FUNCTION append_event_locked TO annals_app;
        GRANT EXECUTE ON PROCEDURE append_event TO annals_app;
        GRANT EXECUTE ON FUNCTION append_events_locked TO annals_app;
        GRANT EXECUTE ON PROCEDURE append_events TO annals_app;
        GRANT EXECUTE ON FUNCTION count_events TO annals_app;
        GRANT EXECUTE ON FUNCTION create_partition TO annals_app;
        GRANT EXECUTE ON FUNCTION ensure_current_epoch TO annals_app;
        GRANT EXECUTE ON FUNCTION erase_events TO annals_app;
        GRANT EXECUTE ON FUNCTION log_origin TO annals_app;
        GRANT EXECUTE ON FUNCTION record_announcement TO annals_app;
        GRANT EXECUTE ON FUNCTION record_served_epochs TO annals_app;
        GRANT EXECUTE ON FUNCTION seal_partition TO annals_app;
        GRANT EXECUTE ON FUNCTION seal_streams TO annals_app;
    END IF;
END
$$;
