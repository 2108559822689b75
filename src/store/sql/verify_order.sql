-- The number, positions and times of a partition's events, and the events that are out of order: a position that does
-- not follow the one before (unless an epoch began in between), or a time that goes backwards.
-- $1 and $2 bounds of the partition, $3 after this position, $4 up to this position, $5 the largest number of findings
WITH ordered AS (
    SELECT e.global_position,
           e.occurred_at,
           lag(e.global_position) OVER along AS position_before,
           lag(e.occurred_at) OVER along AS time_before
      FROM events e
     WHERE e.occurred_at >= $1
       AND e.occurred_at < $2
       AND e.global_position > $3
       AND e.global_position <= $4
    WINDOW along AS (ORDER BY e.global_position)
), faulty AS (
    SELECT o.global_position, o.position_before, o.occurred_at, o.time_before
      FROM ordered o
     WHERE o.occurred_at < o.time_before
        OR o.global_position > o.position_before + 1
           AND NOT EXISTS (
               SELECT FROM epochs s
                WHERE s.first_position > o.position_before
                  AND s.first_position <= o.global_position)
     ORDER BY o.global_position
     LIMIT $5
)
SELECT count(*) AS events,
       min(o.global_position) AS first_position,
       max(o.global_position) AS last_position,
       min(o.occurred_at) AS first_occurred_at,
       max(o.occurred_at) AS last_occurred_at,
       ARRAY(SELECT format('position %s (%s) follows position %s (%s): %s',
                           f.global_position, f.occurred_at, f.position_before, f.time_before,
                           CASE
                               WHEN f.occurred_at < f.time_before THEN 'its time is earlier'
                               ELSE 'the positions are not consecutive'
                           END)
               FROM faulty f) AS findings
  FROM ordered o
