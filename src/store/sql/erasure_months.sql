-- The months of erasures, in order. $1 the erasures
SELECT erasure, starts_at, events, archived, removed_at
  FROM erasure_months
 WHERE erasure = ANY ($1)
 ORDER BY erasure, starts_at
