-- The times of known events, NULL for unknown ones, in the order of the ids. $1 event_ids
SELECT coalesce(
           array_agg((SELECT k.occurred_at FROM event_ids k WHERE k.event_id = i.event_id) ORDER BY i.n),
           '{}')
  FROM unnest($1::uuid[]) WITH ORDINALITY AS i (event_id, n)
