-- The months whose files may still have erased content, and the last erasure of each. $1 up to this erasure
SELECT m.starts_at, (SELECT max(l.erasure) FROM erasure_months l WHERE l.starts_at = m.starts_at)
  FROM erasure_months m
 WHERE m.removed_at IS NULL
   AND m.erasure <= $1
 GROUP BY m.starts_at
 ORDER BY m.starts_at
