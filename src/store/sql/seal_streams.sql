-- Seals the next streams of a partition; see the function. Returns the last one; no row at the end.
-- $1 and $2 bounds of the partition, $3 and $4 the last stream that is done, $5 the number of streams
SELECT s.aggregate_type, s.aggregate_id
  FROM seal_streams(
           p_starts_at => $1,
           p_ends_at => $2,
           p_after_type => $3,
           p_after_id => $4,
           p_limit => $5) AS s
