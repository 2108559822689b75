-- Exchanges the table of a partition for its copy. migrations/functions/replace_partition_table.sql describes the
-- parameters and the locks.
SELECT replace_partition_table(
           p_name => $1,
           p_starts_at => $2,
           p_ends_at => $3,
           p_copy => $4,
           p_copied_to => $5,
           p_last_erasure => $6)
