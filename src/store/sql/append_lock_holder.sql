-- The virtual transaction that holds the append lock; NULL if there is none.
SELECT (SELECT l.virtualtransaction
          FROM pg_locks l
         WHERE l.relation = 'append_lock'::regclass
           AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
           AND l.mode = 'ExclusiveLock'
           AND l.granted)
