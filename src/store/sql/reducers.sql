-- Reducers in byte order of their types. $1 type of the only one to return (NULL: all)
SELECT aggregate_type, revision, language, source, snapshot_every, created_at
  FROM reducers
 WHERE $1::text IS NULL
    OR aggregate_type = $1
 ORDER BY aggregate_type
