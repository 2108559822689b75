-- The archived events that event_ids does not have with the same place and content. An erased event, whose hash is 0,
-- must not have the erased content after its month was written again.
-- $1 to $11 the fields of the events, $12 the largest number of findings
SELECT format('event %s at position %s, archived: the table event_ids does not have it with this place and content',
              e.event_id, e.global_position)
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[]::jsonb[], $7::text[]::jsonb[],
              $8::timestamptz[], $9::uuid[], $10::uuid[], $11::bigint[])
       AS e (event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, occurred_at,
             correlation_id, causation_id, global_position)
  LEFT JOIN event_ids k
    ON k.event_id = e.event_id
  LEFT JOIN streams s
    ON s.aggregate_type = e.aggregate_type
   AND s.aggregate_id = e.aggregate_id
 WHERE (k.stream_no, k.version, k.global_position, k.occurred_at)
       IS DISTINCT FROM
       (s.stream_no, e.version, e.global_position, e.occurred_at)
    OR CASE
           WHEN k.content_hash = 0 THEN EXISTS (
                SELECT
                  FROM erased_events d
                  JOIN erasure_months m
                    ON m.erasure = d.erasure
                   AND m.removed_at IS NOT NULL
                   AND m.starts_at = (SELECT max(p.starts_at) FROM partitions p WHERE p.starts_at <= d.occurred_at)
                 WHERE d.global_position = e.global_position
                   AND (e.event_data, e.metadata)
                       IS DISTINCT FROM
                       (erase_members(e.event_data, 'event_data', d.members),
                        erase_members(e.metadata, 'metadata', d.members)))
           ELSE k.content_hash
                <> event_content_hash(e.event_type, e.event_data, e.metadata, e.correlation_id, e.causation_id)
       END
 ORDER BY e.global_position
 LIMIT $12
