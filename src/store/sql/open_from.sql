-- The start of the oldest partition that is not sealed; no row if none exists.
SELECT starts_at
  FROM partitions
 WHERE sealed_at IS NULL
 ORDER BY starts_at
 LIMIT 1
