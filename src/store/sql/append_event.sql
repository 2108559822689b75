-- A single event, one commit: see migrations/0012_append_event.sql, which names the parameters in this order, and the locks.
-- The documents of $6 and $7 become JSONB before the append lock is taken. The NULL stands for the answer.
CALL append_event(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
    NULL)
