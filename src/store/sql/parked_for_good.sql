-- The number of parked streams, and of those whose retry an operator decides, by group.
-- $1 group_nos
SELECT k.group_no, count(*), count(*) FILTER (WHERE k.retry_at IS NULL)
  FROM parked_streams k
 WHERE k.group_no = ANY ($1::bigint[])
 GROUP BY k.group_no
