-- Stores a snapshot, unless a later one of the same reducer and revision is stored; then no row is returned.
-- $1 aggregate_type, $2 aggregate_id, $3 version, $4 state, $5 revision, $6 occurred_at of the event with that version,
-- $7 revision of the reducer that computed the state and must still be the type's (NULL: a client computed it, and the
-- type must have no reducer)
-- Locks: the snapshot's row.
INSERT INTO snapshots AS s (aggregate_type, aggregate_id, version, state, revision, occurred_at, reducer, checksum)
SELECT $1, $2, $3, made.state, $5, $6, $7, snapshot_checksum($1, $2, $3, made.state, $6, $7, $5)
  FROM (SELECT $4::jsonb AS state) AS made
 WHERE (SELECT r.revision FROM reducers r WHERE r.aggregate_type = $1) IS NOT DISTINCT FROM $7
    ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
   SET version = excluded.version,
       state = excluded.state,
       revision = excluded.revision,
       occurred_at = excluded.occurred_at,
       reducer = excluded.reducer,
       checksum = excluded.checksum,
       created_at = clock_timestamp()
 WHERE (s.revision, s.reducer) IS DISTINCT FROM (excluded.revision, excluded.reducer)
    OR s.version <= excluded.version
    -- A damaged snapshot is always replaced.
    OR s.checksum <> snapshot_checksum(
           s.aggregate_type, s.aggregate_id, s.version, s.state, s.occurred_at, s.reducer, s.revision)
RETURNING xmax = 0 AS created, created_at
