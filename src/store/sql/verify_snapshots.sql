-- A random sample of the snapshots, and whether each still matches its checksum. $1 the largest number of snapshots
SELECT s.aggregate_type::text AS aggregate_type,
       s.aggregate_id::text AS aggregate_id,
       s.version,
       s.state::text AS state,
       s.occurred_at,
       s.reducer,
       s.checksum = snapshot_checksum(
           s.aggregate_type, s.aggregate_id, s.version, s.state, s.occurred_at, s.reducer, s.revision) AS is_intact
  FROM snapshots s
 ORDER BY random()
 LIMIT $1
