-- The virtual transactions that read or write events or another table. VACUUM and ANALYZE are not among them.
-- $1 name of the other table
SELECT DISTINCT l.virtualtransaction
  FROM pg_locks l
 WHERE l.granted
   AND l.mode <> 'ShareUpdateExclusiveLock'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.relation IN ('events'::regclass, to_regclass(quote_ident($1)))
   AND l.pid <> pg_backend_pid()
