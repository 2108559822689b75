-- Where the log stands: the epoch, and the last event if there is one; always one row.
-- $1 start of the oldest month that is not rolled up
SELECT o.epoch, coalesce(e.global_position, 0) AS global_position, e.occurred_at
  FROM (
       SELECT epoch
         FROM epochs
        ORDER BY epoch DESC
        LIMIT 1) AS o
  LEFT JOIN LATERAL (
       SELECT global_position, occurred_at
         FROM events
        WHERE occurred_at >= $1
        ORDER BY global_position DESC
        LIMIT 1) AS e
    ON true
