-- The newest erasure that has erased the named content of one of some events; NULL if there is none.
-- $1 global_positions, $2 the named members; NULL: all content. A member below an erased one is erased, too.
SELECT max(d.erasure)
  FROM unnest($1::bigint[]) AS i (global_position)
  JOIN erased_events d
    ON d.global_position = i.global_position
 WHERE d.members IS NULL
    OR $2::text[] IS NULL
    OR EXISTS (
       SELECT
         FROM unnest(d.members) AS erased (member)
         JOIN unnest($2::text[]) AS named (member)
           ON starts_with(named.member || '/', erased.member || '/'))
