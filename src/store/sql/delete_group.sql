-- Deletes a group; see the function. $1 name
SELECT delete_group(p_name => $1)
