-- The sizes of the tables, with one row for each partition of events: bytes of the heap, of the indexes, and of TOAST
-- with its index; and PostgreSQL's statistics of each.
--
-- An archiver may drop a partition that the snapshot of this statement still has. The functions of its sizes then return
-- NULL, and the partition is left out.
SELECT *
  FROM (SELECT t.relname::text AS name,
               p.inhrelid IS NOT NULL AS is_partition,
               pg_relation_size(t.oid) AS heap_bytes,
               pg_indexes_size(t.oid) AS index_bytes,
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
            OR t.oid IN ('streams'::regclass, 'event_ids'::regclass, 'snapshots'::regclass,
                         'projection_positions'::regclass)) sizes
 WHERE heap_bytes IS NOT NULL
   AND index_bytes IS NOT NULL
   AND toast_bytes IS NOT NULL
 ORDER BY name
