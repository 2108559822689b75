-- The number of the last migration that was applied; 0 if none was.
SELECT coalesce(max(version), 0)
  FROM annals_migrations
 WHERE success
