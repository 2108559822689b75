-- Deletes a type's reducer. Its snapshots are no longer usable. $1 aggregate_type
DELETE FROM reducers
 WHERE aggregate_type = $1
