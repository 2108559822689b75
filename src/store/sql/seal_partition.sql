-- Marks a partition as sealed in the catalogue. $1 and $2 bounds of the partition
UPDATE partitions
   SET first_position = held.first_position,
       last_position = held.last_position,
       events = held.events,
       first_occurred_at = held.first_occurred_at,
       last_occurred_at = held.last_occurred_at,
       sealed_at = clock_timestamp()
  FROM (
       SELECT min(global_position) AS first_position,
              max(global_position) AS last_position,
              count(*) AS events,
              min(occurred_at) AS first_occurred_at,
              max(occurred_at) AS last_occurred_at
         FROM events
        WHERE occurred_at >= $1
          AND occurred_at < $2) AS held
 WHERE starts_at = $1
   AND sealed_at IS NULL
