-- The last claim that was made with an idempotency key. $1 group_no, $2 the key
SELECT c.partition, c.step, c.key_use
  FROM claims c
 WHERE c.group_no = $1
   AND c.claim_key = $2
 ORDER BY c.key_use DESC
 LIMIT 1
