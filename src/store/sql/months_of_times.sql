-- The months of some times, in order: the beginning of each, the number of times, and whether it is archived. $1 times
SELECT p.starts_at, count(*)::integer, bool_or(p.archived_at IS NOT NULL)
  FROM unnest($1::timestamptz[]) AS i (occurred_at)
  JOIN partitions p
    ON p.starts_at <= i.occurred_at
   AND p.ends_at > i.occurred_at
 GROUP BY p.starts_at
 ORDER BY p.starts_at
