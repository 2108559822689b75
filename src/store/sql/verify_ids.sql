-- The events of a partition that event_ids does not have with the same place and content, or whose stream is not in
-- streams. An erased event, whose hash is 0, must not have the erased content.
-- $1 and $2 bounds of the partition, $3 after this position, $4 up to this position, $5 the largest number of findings
SELECT format('event %s at position %s: %s', e.event_id, e.global_position,
              CASE
                  WHEN k.event_id IS NULL THEN 'its id is not in the table event_ids'
                  WHEN s.stream_no IS NULL THEN 'its stream is not in the table streams'
                  WHEN k.stream_no <> s.stream_no THEN 'the table event_ids names another stream'
                  WHEN (k.version, k.global_position, k.occurred_at) <> (e.version, e.global_position, e.occurred_at)
                      THEN 'the table event_ids names another place'
                  WHEN k.content_hash = 0 THEN 'its content was erased, and exists'
                  ELSE 'its content is not what was written'
              END)
  FROM events e
  LEFT JOIN event_ids k
    ON k.event_id = e.event_id
  LEFT JOIN streams s
    ON s.aggregate_type = e.aggregate_type
   AND s.aggregate_id = e.aggregate_id
 WHERE e.occurred_at >= $1
   AND e.occurred_at < $2
   AND e.global_position > $3
   AND e.global_position <= $4
   AND ((k.stream_no, k.version, k.global_position, k.occurred_at)
        IS DISTINCT FROM
        (s.stream_no, e.version, e.global_position, e.occurred_at)
        OR CASE
               WHEN k.content_hash = 0 THEN EXISTS (
                    SELECT
                      FROM erased_events d
                     WHERE d.global_position = e.global_position
                       AND (e.event_data, e.metadata)
                           IS DISTINCT FROM
                           (erase_members(e.event_data, 'event_data', d.members),
                            erase_members(e.metadata, 'metadata', d.members)))
               ELSE k.content_hash
                    <> event_content_hash(e.event_type, e.event_data, e.metadata, e.correlation_id, e.causation_id)
           END)
 ORDER BY e.global_position
 LIMIT $5
