-- Start of the oldest month that is not rolled up.
SELECT starts_at
  FROM partitions
 WHERE rolled_up_at IS NULL
 ORDER BY starts_at
 LIMIT 1
