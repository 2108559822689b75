-- Deletes a snapshot. $1 aggregate_type, $2 aggregate_id
DELETE FROM snapshots
 WHERE aggregate_type = $1
   AND aggregate_id = $2
