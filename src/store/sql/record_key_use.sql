-- Records when keys were last used. $1 their ids, $2 the times, in the same order
UPDATE api_keys AS k
   SET last_used_at = u.used_at
  FROM unnest($1::text[], $2::timestamptz[]) AS u (key_id, used_at)
 WHERE k.key_id = u.key_id
   AND (k.last_used_at IS NULL OR k.last_used_at < u.used_at)
