-- The erasures whose $erased events are not recorded yet, in order.
SELECT erasure
  FROM erasures
 WHERE removed_at IS NULL
   AND announced_position IS NULL
 ORDER BY erasure
