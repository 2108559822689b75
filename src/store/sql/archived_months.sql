-- Where the archived months are, oldest first: one row, an array.
SELECT coalesce(array_agg(archived_to ORDER BY starts_at), '{}')
  FROM partitions
 WHERE archived_at IS NOT NULL
