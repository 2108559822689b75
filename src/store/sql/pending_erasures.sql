-- The number of erasures whose bytes are not removed yet, and when the oldest was requested.
SELECT count(*), min(requested_at)
  FROM erasures
 WHERE removed_at IS NULL
