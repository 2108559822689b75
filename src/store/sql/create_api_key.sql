-- Stores an API key. $1 key_id, $2 name, $3 SHA-256 of the secret, $4 grants, $5 requests_per_minute,
-- $6 events_per_minute, $7 bytes_per_minute, $8 seconds until it expires (NULL: never)
INSERT INTO api_keys (
    key_id, name, secret_sha256, grants, requests_per_minute, events_per_minute, bytes_per_minute, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8::double precision * interval '1 second')
