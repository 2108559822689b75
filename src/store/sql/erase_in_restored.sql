-- Erases in a restored table what was erased since its masks were read. migrations/functions/erase_in_restored.sql
-- describes the parameters and the locks.
SELECT erase_in_restored(p_table => $1, p_starts_at => $2, p_ends_at => $3, p_last_erasure => $4)
