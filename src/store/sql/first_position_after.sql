-- The first position after another one in a part of the log; no row if there is none.
-- $1 after this position, $2 and $3 earliest and latest occurred_at of the part
SELECT global_position
  FROM events
 WHERE global_position > $1
   AND occurred_at >= $2
   AND occurred_at <= $3
 ORDER BY global_position
 LIMIT 1
