-- For each of some times, the last position in a part of the log that is before the time; the position before the part
-- if all of it is later. Times never go backwards along the log, so a bisection finds each position.
-- $1 the times, $2 after this position, $3 up to this position, $4 and $5 earliest and latest occurred_at of the part
SELECT found.low
  FROM unnest($1::timestamptz[]) WITH ORDINALITY AS wanted (time, number)
 CROSS JOIN LATERAL (
       WITH RECURSIVE search (low, high) AS (
           -- Events up to low are before the time; events above high are not.
           SELECT $2::bigint, $3::bigint
           UNION ALL
           SELECT CASE WHEN probe.is_before THEN probe.middle ELSE s.low END,
                  CASE WHEN probe.is_before THEN s.high ELSE probe.middle - 1 END
             FROM search s
            CROSS JOIN LATERAL (
                  SELECT m.middle,
                         coalesce((
                             SELECT e.occurred_at < wanted.time
                               FROM events e
                              WHERE e.global_position >= m.middle
                                AND e.global_position <= s.high
                                AND e.occurred_at >= $4
                                AND e.occurred_at <= $5
                              ORDER BY e.global_position
                              LIMIT 1), false) AS is_before
                    FROM (SELECT (s.low + s.high + 1) / 2 AS middle) AS m) AS probe
            WHERE s.low < s.high
       )
       SELECT low
         FROM search
        WHERE low >= high) AS found
 ORDER BY wanted.number
