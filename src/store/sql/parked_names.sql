-- The parked streams in some buckets. $1 group_no, $2 the buckets
SELECT k.bucket, k.aggregate_type::text, k.aggregate_id::text
  FROM parked_streams k
 WHERE k.group_no = $1
   AND k.bucket = ANY ($2::smallint[])
