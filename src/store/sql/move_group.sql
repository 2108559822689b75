-- Moves the stored position of a group forward; see the function. $1 group_no, $2 revision, $3 the position
SELECT move_group(p_group_no => $1, p_revision => $2, p_position => $3)
