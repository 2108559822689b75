-- The value of synchronous_standby_names if a session of this database has committed, and has waited for a synchronous
-- standby for longer than a healthy one takes; no row otherwise. The role of the service may not see the sessions of its login.
SET LOCAL ROLE NONE;
SELECT current_setting('synchronous_standby_names')
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND wait_event = 'SyncRep'
   AND query_start < clock_timestamp() - interval '2 s'
 LIMIT 1
