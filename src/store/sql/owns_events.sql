-- Whether this login owns the tables.
SELECT pg_has_role(c.relowner, 'USAGE')
  FROM pg_class c
 WHERE c.oid = 'events'::regclass
