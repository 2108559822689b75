-- The streams of an erasure. Its events have all the same erased members. $1 the erasure
SELECT s.aggregate_type::text AS aggregate_type,
       s.aggregate_id::text AS aggregate_id,
       s.versions,
       to_jsonb((SELECT d.members
                   FROM erased_events d
                  WHERE d.erasure = $1
                  ORDER BY d.occurred_at
                  LIMIT 1)) AS members
  FROM erased_streams s
 WHERE s.erasure = $1
 ORDER BY s.aggregate_type, s.aggregate_id
