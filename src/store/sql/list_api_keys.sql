-- All keys, oldest first, without what belongs to their secrets
SELECT key_id, name, grants, requests_per_minute, events_per_minute, bytes_per_minute,
       created_at, expires_at, revoked_at, last_used_at
  FROM api_keys
 ORDER BY created_at, key_id
