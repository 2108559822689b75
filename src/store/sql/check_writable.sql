-- Writes what an append needs: pages of a table, and a record in the write-ahead log that the commit waits for. In one
-- transaction, so that the rows are removed at its end.
DO $$
BEGIN
    IF to_regclass('pg_temp.annals_check') IS NOT NULL THEN
        INSERT INTO pg_temp.annals_check SELECT generate_series(1, 1000);
    END IF;
    PERFORM pg_logical_emit_message(true, 'annals', 'check');
END
$$
