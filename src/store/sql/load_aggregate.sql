-- An aggregate: see migrations/0006_snapshots.sql, which names the parameters in this order.
SELECT *
  FROM load_aggregate($1, $2, $3, $4, $5, $6, $7)
