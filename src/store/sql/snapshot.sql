-- A snapshot as it is stored, fitting or not. $1 aggregate_type, $2 aggregate_id
SELECT version, revision, state::text AS state, created_at
  FROM snapshots
 WHERE aggregate_type = $1
   AND aggregate_id = $2
