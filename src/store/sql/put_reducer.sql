-- Registers a type's reducer, or replaces it. If it is identical, its revision stays the same. A replaced revision is
-- never used again, so its snapshots are no longer usable.
-- $1 aggregate_type, $2 language, $3 source, $4 snapshot_every
-- Locks: the reducer's row.
INSERT INTO reducers AS r (aggregate_type, language, source, snapshot_every)
VALUES ($1, $2, $3, $4)
    ON CONFLICT (aggregate_type) DO UPDATE
   SET language = excluded.language,
       source = excluded.source,
       snapshot_every = excluded.snapshot_every,
       revision = CASE
           WHEN (r.language, r.source, r.snapshot_every)
                = (excluded.language, excluded.source, excluded.snapshot_every) THEN r.revision
           ELSE nextval('reducer_revisions') END,
       created_at = CASE
           WHEN (r.language, r.source, r.snapshot_every)
                = (excluded.language, excluded.source, excluded.snapshot_every) THEN r.created_at
           ELSE clock_timestamp() END
RETURNING xmax = 0 AS created, revision, created_at
