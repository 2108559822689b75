-- The parked streams that are due, the longest due first. $1 group_no, $2 the largest number of rows
SELECT k.aggregate_type::text, k.aggregate_id::text, k.bucket, k.last_processed_position, k.event_id,
       k.event_type::text, k.version, k.global_position, k.attempts, k.reason, k.parked_at, k.failed_at, k.retry_at
  FROM parked_streams k
 WHERE k.group_no = $1
   AND k.retry_at <= clock_timestamp()
 ORDER BY k.retry_at
 LIMIT $2
