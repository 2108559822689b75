-- The last erasure of a stream; NULL if there is none. $1 aggregate_type, $2 aggregate_id
SELECT max(erasure)
  FROM erased_streams
 WHERE aggregate_type = $1
   AND aggregate_id = $2
