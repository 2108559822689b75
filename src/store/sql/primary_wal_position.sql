-- Returns the number of bytes of write-ahead log that the primary has written to its disk; NULL on a standby.
SELECT CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - '0/0')::bigint END
