-- Where the log stands: the epoch, and the last event if there is one; always one row. And a number that grows whenever a
-- month is closed, leaves the database or comes back: what is known of the months is good as long as it is the same.
-- $1 start of the oldest month that is not rolled up
SELECT o.epoch, coalesce(e.global_position, 0) AS global_position, e.occurred_at,
       (SELECT coalesce(sum(p.archive_changes), 0) + count(p.rolled_up_at) FROM partitions p) AS month_changes
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
