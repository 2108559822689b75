-- Makes parked streams due. $1 group_no, $2 aggregate_type, $3 event_type, $4 reason; NULL: any
UPDATE parked_streams AS k
   SET retry_at = clock_timestamp()
 WHERE k.group_no = $1
   AND ($2::text IS NULL OR k.aggregate_type = $2)
   AND ($3::text IS NULL OR k.event_type = $3)
   AND ($4::text IS NULL OR k.reason = $4)
