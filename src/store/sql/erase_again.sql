-- Erases in a table what was erased since its events were read. migrations/functions/erase_again.sql describes the
-- parameters and the locks.
SELECT erase_again(p_table => $1, p_starts_at => $2, p_ends_at => $3, p_last_erasure => $4)
