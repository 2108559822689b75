-- What the sequences and the counts of the statistics say of the log, and the log does not have. Each row is a finding.
-- $1 position of the head, $2 epoch, $3 whether to compare all counts, $4 the largest number of events that one append
-- can write, $5 the largest number of findings
SELECT f.finding
  FROM (
       SELECT format('the sequence of stream numbers is at %s, and a stream has the number %s',
                     q.last_value, m.stream_no) AS finding
         FROM streams_stream_no_seq q
         JOIN (SELECT max(s.stream_no) AS stream_no FROM streams s) AS m
           ON m.stream_no > CASE WHEN q.is_called THEN q.last_value ELSE 0 END

       UNION ALL
       SELECT format('the append generation is %s, which is too low for the positions up to %s', q.last_value, $1)
         FROM append_generation q
        WHERE $2 = 1
          AND $1 > CASE WHEN q.is_called THEN q.last_value ELSE 0 END * $4

       UNION ALL
       SELECT format('the number of events of the type %s is %s in the statistics, and %s in the table event_ids',
                     coalesce(c.aggregate_type, k.aggregate_type), coalesce(c.events, 0), coalesce(k.events, 0))
         FROM (
              SELECT c.aggregate_type, sum(c.events) AS events
                FROM event_counts c
               GROUP BY c.aggregate_type) AS c
         FULL JOIN (
              SELECT s.aggregate_type, count(*) AS events
                FROM event_ids k
                JOIN streams s
                  ON s.stream_no = k.stream_no
               WHERE k.global_position <= (SELECT t.as_of_position FROM statistics t)
               GROUP BY s.aggregate_type) AS k
           ON k.aggregate_type = c.aggregate_type
        WHERE $3
          AND c.events IS DISTINCT FROM k.events

       UNION ALL
       SELECT format('the number of streams of the type %s is %s in the statistics, and %s in the table event_ids',
                     coalesce(c.aggregate_type, k.aggregate_type), coalesce(c.streams, 0), coalesce(k.streams, 0))
         FROM (
              SELECT c.aggregate_type, c.streams
                FROM stream_counts c
               WHERE c.at_least = 1) AS c
         FULL JOIN (
              SELECT s.aggregate_type, count(*) AS streams
                FROM event_ids k
                JOIN streams s
                  ON s.stream_no = k.stream_no
               WHERE k.version = 1
                 AND k.global_position <= (SELECT t.as_of_position FROM statistics t)
               GROUP BY s.aggregate_type) AS k
           ON k.aggregate_type = c.aggregate_type
        WHERE $3
          AND c.streams IS DISTINCT FROM k.streams

       UNION ALL
       SELECT format('the number of snapshots of the type %s is %s in the statistics, and %s in the table snapshots',
                     coalesce(c.aggregate_type, s.aggregate_type), coalesce(c.snapshots, 0), coalesce(s.snapshots, 0))
         FROM (
              SELECT n.aggregate_type, sum(n.snapshots) AS snapshots
                FROM (
                     SELECT c.aggregate_type, c.snapshots FROM snapshot_counts c
                     UNION ALL
                     SELECT c.aggregate_type, c.change FROM snapshot_changes c) AS n
               GROUP BY n.aggregate_type
              HAVING sum(n.snapshots) <> 0) AS c
         FULL JOIN (
              SELECT s.aggregate_type, count(*) AS snapshots
                FROM snapshots s
               GROUP BY s.aggregate_type) AS s
           ON s.aggregate_type = c.aggregate_type
        WHERE $3
          AND c.snapshots IS DISTINCT FROM s.snapshots
       ) AS f
 LIMIT $5
