-- A number that grows whenever a month is closed, leaves the database or comes back.
SELECT coalesce(sum(archive_changes), 0) + count(rolled_up_at)
  FROM partitions
