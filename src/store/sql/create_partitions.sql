-- Creates the partitions from the month of $1 to the month of $2 that are missing. Returns how many were missing.
SELECT count(*)
  FROM generate_series(
           date_trunc('month', $1::timestamptz AT TIME ZONE 'UTC'),
           date_trunc('month', $2::timestamptz AT TIME ZONE 'UTC'),
           interval '1 month') AS months (month)
 WHERE create_partition(months.month AT TIME ZONE 'UTC')
