-- Creates the table of the writer's check, if the login may create temporary tables. Its rows are removed at each commit,
-- without a change of the catalogue.
DO $$
BEGIN
    IF has_database_privilege(current_database(), 'TEMPORARY') THEN
        CREATE TEMPORARY TABLE IF NOT EXISTS annals_check (n integer NOT NULL) ON COMMIT DELETE ROWS;
    END IF;
END
$$
