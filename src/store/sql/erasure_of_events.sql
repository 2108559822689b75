-- The newest erasure of some events; NULL if there is none. $1 global_positions
SELECT max(d.erasure)
  FROM unnest($1::bigint[]) AS i (global_position)
  JOIN erased_events d
    ON d.global_position = i.global_position
