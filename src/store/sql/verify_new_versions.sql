-- The streams whose versions after a position do not follow the versions before it. The version before is in the
-- database, or was sealed.
-- $1 after this position, $2 up to this position, $3 not before this time, $4 the largest number of findings
SELECT format('stream %s/%s: versions %s to %s (number of events: %s)%s', n.aggregate_type, n.aggregate_id,
              n.first_version, n.last_version, n.events,
              CASE WHEN n.is_continued THEN '' ELSE format(', without version %s before them', n.first_version - 1) END)
  FROM (
       SELECT e.aggregate_type, e.aggregate_id,
              min(e.version) AS first_version,
              max(e.version) AS last_version,
              count(*) AS events,
              min(e.version) = 1
              OR EXISTS (
                  SELECT FROM events b
                   WHERE b.aggregate_type = e.aggregate_type
                     AND b.aggregate_id = e.aggregate_id
                     AND b.version = min(e.version) - 1)
              OR EXISTS (
                  SELECT FROM streams s
                   WHERE s.aggregate_type = e.aggregate_type
                     AND s.aggregate_id = e.aggregate_id
                     AND s.version >= min(e.version) - 1) AS is_continued
         FROM events e
        WHERE e.global_position > $1
          AND e.global_position <= $2
          AND e.occurred_at >= $3
        GROUP BY e.aggregate_type, e.aggregate_id) AS n
 WHERE NOT n.is_continued
    OR n.events <> n.last_version - n.first_version + 1
 ORDER BY n.aggregate_type, n.aggregate_id
 LIMIT $4
