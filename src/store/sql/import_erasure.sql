-- Notes the events that an imported $erased event names as erased. migrations/functions/import_erasure.sql describes the
-- parameters and the locks.
SELECT import_erasure(
           p_source => $1,
           p_aggregate_type => $2,
           p_aggregate_id => $3,
           p_versions => $4,
           p_members => $5,
           p_version => $6,
           p_global_position => $7)
