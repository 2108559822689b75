-- Refuses every UPDATE, DELETE and TRUNCATE of events and of their ids, because events are never changed. The only
-- exception is the UPDATE of an erasure: its functions set annals.erasing during it.
--
-- The parent and each partition have a trigger of their own (create_partition_table makes the latter).
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('annals.erasing', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% on % is refused: events are never changed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE OR REPLACE TRIGGER events_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE OR REPLACE TRIGGER event_ids_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event_ids
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
