-- Records each insert and each delete of a snapshot, for count_events. Replacing a snapshot changes no count.
--
-- Locks: none but those of the inserted row.
-- SECURITY DEFINER: the role that writes snapshots may not write counts.
CREATE OR REPLACE FUNCTION record_snapshot_change() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM snapshot_counts;
        DELETE FROM snapshot_changes;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO snapshot_changes (aggregate_type, change)
        VALUES (NEW.aggregate_type, 1);
    ELSE
        INSERT INTO snapshot_changes (aggregate_type, change)
        VALUES (OLD.aggregate_type, -1);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER snapshots_counted
    AFTER INSERT OR DELETE ON snapshots
    FOR EACH ROW EXECUTE FUNCTION record_snapshot_change();

CREATE OR REPLACE TRIGGER snapshots_truncated
    AFTER TRUNCATE ON snapshots
    FOR EACH STATEMENT EXECUTE FUNCTION record_snapshot_change();

REVOKE ALL ON FUNCTION record_snapshot_change FROM PUBLIC;
