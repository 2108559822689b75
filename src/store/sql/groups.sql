-- Groups in byte order of their names, with their settings.
-- $1 the name of the only group to return (NULL: all), $2 only names after this one, $3 the largest number of groups
SELECT g.group_no, g.projection_name::text, g.partitions, g.filter::text, g.lease_seconds, g.retry_after, g.paused,
       g.revision
  FROM groups g
 WHERE ($1::text IS NULL OR g.projection_name = $1)
   AND g.projection_name > $2
 ORDER BY g.projection_name
 LIMIT $3
