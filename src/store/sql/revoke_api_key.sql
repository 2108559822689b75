-- Revokes an API key. Returns when it was revoked first; no row if the key does not exist. $1 key_id
-- Locks: the key's row.
UPDATE api_keys
   SET revoked_at = coalesce(revoked_at, clock_timestamp())
 WHERE key_id = $1
RETURNING revoked_at
