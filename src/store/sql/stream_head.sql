-- The head of a stream; no row if the stream does not exist.
-- $1 aggregate_type, $2 aggregate_id, $3 start of the oldest partition that is not sealed (an older time is harmless)
SELECT h.version, h.first_occurred_at, h.last_occurred_at
  FROM stream_head(p_aggregate_type => $1, p_aggregate_id => $2, p_open_from => $3) AS h
