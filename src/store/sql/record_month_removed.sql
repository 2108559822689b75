-- Records that no file of a month has the erased content any more. $1 starts_at, $2 up to this erasure
UPDATE erasure_months
   SET removed_at = clock_timestamp()
 WHERE starts_at = $1
   AND erasure <= $2
   AND removed_at IS NULL
