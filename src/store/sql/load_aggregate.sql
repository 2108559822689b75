-- An aggregate: its head and snapshot, then its events. migrations/functions/load_aggregate.sql describes the
-- parameters.
SELECT *
  FROM load_aggregate(
           p_aggregate_type => $1,
           p_aggregate_id => $2,
           p_open_from => $3,
           p_use_snapshot => $4,
           p_revision => $5,
           p_to_version => $6,
           p_limit => $7)
