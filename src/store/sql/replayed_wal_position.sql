-- Returns the number of bytes of write-ahead log that a standby has replayed; NULL on a primary.
SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END
