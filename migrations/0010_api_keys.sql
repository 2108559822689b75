-- API keys: who may do what. A key itself is nowhere: only the SHA-256 of its secret, which is random enough that no slow
-- hash is needed.

-- grants are scope:pattern, like read:Order*. A key never changes; it ends by expires_at or revoked_at.
CREATE TABLE api_keys (
    key_id              text COLLATE "C" NOT NULL,
    name                varchar(255) NOT NULL,
    secret_sha256       bytea NOT NULL,
    grants              text[] NOT NULL,
    requests_per_minute integer,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at          timestamptz,
    revoked_at          timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (key_id),
    CONSTRAINT api_keys_sha256 CHECK (octet_length(secret_sha256) = 32),
    CONSTRAINT api_keys_grants CHECK (cardinality(grants) > 0),
    CONSTRAINT api_keys_quota CHECK (requests_per_minute > 0)
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'annals_app') THEN
        GRANT SELECT ON api_keys TO annals_app;
    END IF;
END
$$;
