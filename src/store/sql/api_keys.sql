-- API keys, oldest first. $1 whether to return only the keys that are valid now
SELECT key_id, name, secret_sha256, grants, requests_per_minute, created_at, expires_at, revoked_at
  FROM api_keys
 WHERE NOT $1
    OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp()))
 ORDER BY created_at, key_id
