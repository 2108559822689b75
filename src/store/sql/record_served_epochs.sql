-- Records the epochs that the process has served and that the log does not have.
-- $1 epochs, $2 their first positions, $3 the epochs before them
SELECT record_served_epochs(p_epochs => $1, p_first_positions => $2, p_former_epochs => $3)
