-- One batch, one commit: see migrations/0003_append.sql, which names the parameters in this order, and the locks.
-- The texts of $9 and $10 become JSONB here, before the append lock is taken. The NULLs stand for the answers.
CALL append_events(
    $1, $2, $3, $4, $5, $6, $7, $8,
    $9::text[]::jsonb[],
    $10::text[]::jsonb[],
    $11, $12, $13, $14, $15,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
