-- Forgets a type's reducer; the snapshots that it made fit no longer. $1 aggregate_type
DELETE FROM reducers
 WHERE aggregate_type = $1
