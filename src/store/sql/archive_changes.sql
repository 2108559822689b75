-- How often a month has left the database or come back, all in all.
SELECT coalesce(sum(archive_changes), 0)
  FROM partitions
