-- The last erasure whose content is hidden, and not removed yet; NULL if there is none.
SELECT max(erasure)
  FROM erasures
 WHERE removed_at IS NULL
   AND hidden_at IS NOT NULL
