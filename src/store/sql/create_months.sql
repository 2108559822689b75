-- Makes the months from that of $1 to that of $2 where they are missing; how many were.
SELECT count(*)
  FROM generate_series(
           date_trunc('month', $1::timestamptz AT TIME ZONE 'UTC'),
           date_trunc('month', $2::timestamptz AT TIME ZONE 'UTC'),
           interval '1 month') AS months (month)
 WHERE create_event_month(months.month AT TIME ZONE 'UTC')
