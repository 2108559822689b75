-- One batch, one commit: see migrations/0003_append.sql, which names the parameters in this order, and the locks.
-- The documents of $13 and $14 become JSONB before the append lock is taken. The NULLs stand for the answers.
CALL append_events(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
