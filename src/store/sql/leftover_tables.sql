-- The tables that an interrupted restore or removal has left: copies of partitions, which belong to no partition.
SELECT c.relname::text
  FROM pg_class c
 WHERE c.relnamespace = (SELECT p.relnamespace FROM pg_class p WHERE p.oid = 'events'::regclass)
   AND c.relkind = 'r'
   AND NOT c.relispartition
   AND c.relname ~ '^events_[0-9]{4,}_[0-9]{2}_[0-9a-f]{8}$'
