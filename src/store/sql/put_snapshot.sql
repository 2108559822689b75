-- Stores a snapshot. migrations/functions/put_snapshot.sql describes the parameters and the locks.
SELECT s.created, s.created_at
  FROM put_snapshot(
           p_aggregate_type => $1,
           p_aggregate_id => $2,
           p_version => $3,
           p_state => $4,
           p_revision => $5,
           p_occurred_at => $6,
           p_reducer => $7,
           p_erasure => $8) AS s
