-- The time of PostgreSQL, and what else decides whether an append is written: whether the server is read-only, and whether
-- the log moves to another database and refuses writes.
SELECT clock_timestamp(),
       current_setting('transaction_read_only')::boolean,
       EXISTS (SELECT FROM log_moves WHERE frozen_at IS NOT NULL)
