-- Records that the $erased events of an erasure are appended. migrations/functions/record_announcement.sql describes the
-- parameters and the locks.
SELECT record_announcement(
           p_erasure => $1,
           p_announced_position => $2,
           p_aggregate_types => $3,
           p_aggregate_ids => $4,
           p_versions => $5)
