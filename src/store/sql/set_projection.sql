-- Sets a projection's position, or creates the projection; see the function.
-- $1 projection_name, $2 the new position, $3 the expected position (NULL: any), $4 whether it may be created,
-- $5 whether it may be updated, $6 whether it may move backwards, $7 the client's key (NULL: none), $8 the largest
-- number of projections, $9 the largest number of projections of one key
SELECT s.outcome,
       s.current_position
  FROM set_projection(
           p_name => $1,
           p_position => $2,
           p_expected => $3,
           p_may_create => $4,
           p_may_update => $5,
           p_may_regress => $6,
           p_key_id => $7,
           p_limit => $8,
           p_key_limit => $9) AS s
