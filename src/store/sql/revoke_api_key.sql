-- Ends an API key, once and for ever; when it ended, or no row if there is none. $1 key_id
-- Locks: the key's row.
UPDATE api_keys
   SET revoked_at = coalesce(revoked_at, clock_timestamp())
 WHERE key_id = $1
RETURNING revoked_at
