-- The keys that are valid now, oldest first, with what is needed to compare a secret
SELECT key_id, name, secret_sha256, grants, requests_per_minute, events_per_minute, bytes_per_minute, expires_at
  FROM api_keys
 WHERE revoked_at IS NULL
   AND (expires_at IS NULL OR expires_at > clock_timestamp())
 ORDER BY created_at, key_id
