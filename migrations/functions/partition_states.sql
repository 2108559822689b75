-- Returns the states of the partitions of a group: the last step of each.
--
--   p_group_no     the group
--   p_partitions   the number of its partitions
--
-- Locks: none.
CREATE OR REPLACE FUNCTION partition_states(p_group_no bigint, p_partitions integer) RETURNS SETOF claims
LANGUAGE sql
STABLE
SET search_path FROM CURRENT
AS $$
    SELECT s.*
      FROM generate_series(0, p_partitions - 1) AS p (partition)
     CROSS JOIN LATERAL (
           SELECT c.*
             FROM claims c
            WHERE c.group_no = p_group_no
              AND c.partition = p.partition
            ORDER BY c.step DESC
            LIMIT 1) AS s
$$;
