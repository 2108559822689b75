-- What other tables have noted of the log beyond its end. Each row is a finding.
-- Within an epoch the log only grows, so its head is at least every position that was noted. A position that was noted
-- in an earlier epoch is at most the last position before a later epoch began.
-- $1 position of the head, $2 current epoch, $3 start of the oldest partition that is not sealed, $4 the largest number
-- of findings
SELECT f.finding
  FROM (
       SELECT CASE
                  WHEN NOT n.has_epoch
                      THEN format('%s of epoch %s, which is not in the table epochs (the current epoch is %s)',
                                  n.note, n.epoch, $2)
                  WHEN n.position > $1
                      THEN format('%s, which is beyond the head of the log (position %s)', n.note, $1)
                  ELSE format('%s of epoch %s, and a later epoch began after position %s',
                              n.note, n.epoch, n.last_common_position)
              END AS finding
         FROM (
              SELECT o.note, o.position, o.epoch,
                     EXISTS (SELECT FROM epochs e WHERE e.epoch = o.epoch) AS has_epoch,
                     (SELECT min(e.first_position) - 1 FROM epochs e WHERE e.epoch > o.epoch) AS last_common_position
                FROM (
                     SELECT format('the log was verified up to position %s', v.verified_position) AS note,
                            v.verified_position AS position,
                            v.epoch
                       FROM verification v
                     UNION ALL
                     SELECT format('projection %s has processed position %s',
                                   p.projection_name, p.last_processed_position),
                            p.last_processed_position,
                            p.epoch
                       FROM projection_positions p) AS o) AS n
        WHERE NOT n.has_epoch
           OR n.position > $1
           OR n.position > n.last_common_position

       UNION ALL
       SELECT format('the statistics are counted up to position %s, which is beyond the head of the log (position %s)',
                     s.as_of_position, $1)
         FROM statistics s
        WHERE s.as_of_position > $1

       UNION ALL
       SELECT format('epoch %s began after position %s, which is beyond the head of the log (position %s)',
                     o.epoch, o.first_position - 1, $1)
         FROM epochs o
        WHERE o.first_position - 1 > $1

       UNION ALL
       -- A partition is sealed when a later event exists.
       SELECT format('the sealed partition %s ends at position %s, and the head of the log is position %s: '
                     'the events after the partition are missing',
                     p.name, p.last_position, $1)
         FROM partitions p
        WHERE p.sealed_at IS NOT NULL
          AND p.last_position >= $1

       UNION ALL
       SELECT format('the log ends at position %s, and the table event_ids has positions up to %s: '
                     'the last events are missing',
                     $1, max(k.global_position))
         FROM event_ids k
        WHERE k.global_position > $1
       HAVING count(*) > 0

       UNION ALL
       SELECT format('stream %s/%s is in the table streams, and has no event', s.aggregate_type, s.aggregate_id)
         FROM streams s
        WHERE s.version = 0
          AND NOT EXISTS (
              SELECT FROM events e
               WHERE e.aggregate_type = s.aggregate_type
                 AND e.aggregate_id = s.aggregate_id
                 AND e.version = 1
                 AND e.occurred_at = s.first_occurred_at)

       UNION ALL
       -- A partition that is being sealed may already have its versions in streams. It has their events, too.
       SELECT format('stream %s/%s has version %s in the table streams, and the log does not have the event of this version',
                     s.aggregate_type, s.aggregate_id, s.version)
         FROM streams s
        WHERE s.last_occurred_at >= $3
          AND NOT EXISTS (
              SELECT FROM events e
               WHERE e.aggregate_type = s.aggregate_type
                 AND e.aggregate_id = s.aggregate_id
                 AND e.version = s.version
                 AND e.occurred_at = s.last_occurred_at
                 AND e.occurred_at >= $3)

       UNION ALL
       SELECT format('snapshot of %s/%s at version %s: its stream does not have this version',
                     s.aggregate_type, s.aggregate_id, s.version)
         FROM snapshots s
         LEFT JOIN LATERAL stream_head(s.aggregate_type, s.aggregate_id, $3) AS h
           ON true
        WHERE s.version > coalesce(h.version, 0)

       UNION ALL
       SELECT format('snapshot of %s/%s at version %s: it is from before erasure %s of events of its stream',
                     s.aggregate_type, s.aggregate_id, s.version, d.erasure)
         FROM snapshots s
         JOIN erased_streams d
           ON d.aggregate_type = s.aggregate_type
          AND d.aggregate_id = s.aggregate_id
         JOIN erasures x
           ON x.erasure = d.erasure
        WHERE s.created_at < x.requested_at

       UNION ALL
       SELECT format('erasure %s is announced at position %s, which is beyond the head of the log (position %s)',
                     x.erasure, x.announced_position, $1)
         FROM erasures x
        WHERE x.announced_position > $1
       ) AS f
 LIMIT $4
