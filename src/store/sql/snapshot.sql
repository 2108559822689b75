-- A stored snapshot, usable or not. $1 aggregate_type, $2 aggregate_id
SELECT version AS snapshot_version,
       revision AS snapshot_revision,
       state AS snapshot_state,
       created_at AS snapshot_created_at
  FROM snapshots
 WHERE aggregate_type = $1
   AND aggregate_id = $2
