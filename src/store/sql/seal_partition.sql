-- Marks a partition as sealed; see the function. $1 and $2 bounds of the partition
SELECT seal_partition(p_starts_at => $1, p_ends_at => $2)
