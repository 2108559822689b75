-- The number of the newest erasure; 0 if there is none.
SELECT coalesce(max(erasure), 0)
  FROM erasures
