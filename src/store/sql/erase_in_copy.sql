-- Erases in the copy what was erased since the copy began. migrations/functions/erase_in_copy.sql describes the parameters.
SELECT erase_in_copy(p_name => $1, p_starts_at => $2, p_ends_at => $3, p_copy => $4, p_last_erasure => $5)
