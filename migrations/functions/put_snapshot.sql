-- Stores a snapshot. Returns no row if a later one of the same reducer and revision is stored, if the reducer of the
-- type is not the expected one, or if events of the stream were erased since the state was computed.
--
--   p_occurred_at   the time of the event with this version
--   p_reducer       the revision of the reducer that computed the state and must still be the type's; NULL: a client
--                   computed it, and the type must have no reducer
--   p_erasure       the last erasure of the stream when the computation began; NULL: none. For a client it is not known:
--                   its snapshot must not be before the last $erased event.
--
-- Locks: snapshots in ROW EXCLUSIVE mode, which an erasure excludes; then the snapshot's row. The lock is acquired by a
-- statement of its own, so that the next one sees an erasure that has held the lock.
CREATE OR REPLACE FUNCTION put_snapshot(
    p_aggregate_type text,
    p_aggregate_id text,
    p_version integer,
    p_state jsonb,
    p_revision text,
    p_occurred_at timestamptz,
    p_reducer bigint,
    p_erasure bigint
)
RETURNS TABLE (created boolean, created_at timestamptz)
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a write of a snapshot needs the isolation level read committed'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    LOCK TABLE snapshots IN ROW EXCLUSIVE MODE;
    RETURN QUERY
    INSERT INTO snapshots AS s (
           aggregate_type, aggregate_id, version, state, revision, occurred_at, reducer, checksum)
    SELECT p_aggregate_type, p_aggregate_id, p_version, p_state, p_revision, p_occurred_at, p_reducer,
           snapshot_checksum(
               p_aggregate_type, p_aggregate_id, p_version, p_state, p_occurred_at, p_reducer, p_revision)
     WHERE (SELECT r.revision FROM reducers r WHERE r.aggregate_type = p_aggregate_type) IS NOT DISTINCT FROM p_reducer
       AND NOT EXISTS (
           SELECT
             FROM erased_streams d
            WHERE d.aggregate_type = p_aggregate_type
              AND d.aggregate_id = p_aggregate_id
              AND CASE
                      WHEN p_reducer IS NULL THEN d.announced_version <= p_version IS NOT TRUE
                      ELSE d.erasure > coalesce(p_erasure, 0)
                  END)  -- marker: snapshot-of-erased
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
    RETURNING s.xmax = 0, s.created_at;
END
$$;
