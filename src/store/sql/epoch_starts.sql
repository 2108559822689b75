-- The positions at which epochs begin, in order. Several epochs may begin at one position.
SELECT DISTINCT first_position
  FROM epochs
 ORDER BY first_position
