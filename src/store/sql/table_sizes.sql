-- What the tables take up, month by month for events: bytes of the rows, of the indexes, and of what was moved out of the
-- rows because it is long (TOAST, with its index); and what PostgreSQL's statistics say of them.
SELECT t.relname::text AS name,
       p.inhrelid IS NOT NULL AS is_month,
       pg_relation_size(t.oid) AS heap_bytes,
       pg_indexes_size(t.oid) AS index_bytes,
       -- pg_table_size counts the maps of free and of visible pages as well; they are the rows' too.
       CASE WHEN t.reltoastrelid = 0 THEN 0 ELSE pg_total_relation_size(t.reltoastrelid) END AS toast_bytes,
       coalesce(u.n_live_tup, 0) AS live_rows,
       coalesce(u.n_dead_tup, 0) AS dead_rows,
       u.last_autovacuum,
       u.last_autoanalyze
  FROM pg_class t
  LEFT JOIN pg_inherits p
    ON p.inhrelid = t.oid
   AND p.inhparent = 'events'::regclass
  LEFT JOIN pg_stat_all_tables u
    ON u.relid = t.oid
 WHERE p.inhrelid IS NOT NULL
    OR t.oid IN ('streams'::regclass, 'event_ids'::regclass, 'snapshots'::regclass, 'projection_positions'::regclass)
 ORDER BY t.relname
