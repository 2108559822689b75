-- The secret namespace of derived event ids
SELECT id_namespace
  FROM store_secrets
