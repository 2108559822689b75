-- Parked streams, in byte order of type and id.
-- $1 group_no, $2 and $3 only after this stream, $4 only of this type (NULL: all), $5 only those whose retry an operator
-- decides, $6 only this id (NULL: all), $7 the largest number of rows
SELECT k.aggregate_type::text, k.aggregate_id::text, k.bucket, k.last_processed_position, k.event_id,
       k.event_type::text, k.version, k.global_position, k.attempts, k.reason, k.parked_at, k.failed_at, k.retry_at
  FROM parked_streams k
 WHERE k.group_no = $1
   AND (k.aggregate_type, k.aggregate_id) > ($2, $3)
   AND ($4::text IS NULL OR k.aggregate_type = $4)
   AND (NOT $5 OR k.retry_at IS NULL)
   AND ($6::text IS NULL OR k.aggregate_id = $6)
 ORDER BY k.aggregate_type, k.aggregate_id
 LIMIT $7
