-- Describes what a session of this database waits for: the session that has waited longest for a lock or for a synchronous
-- standby; no row if none waits. The role of the service may not see the sessions of its login.
SET LOCAL ROLE NONE;
SELECT format(
           'process %s (%s) waits for %s: %s%s, for %s s',
           pid,
           application_name,
           wait_event_type,
           wait_event,
           CASE WHEN cardinality(pg_blocking_pids(pid)) > 0
                THEN ', which is held by process ' || array_to_string(pg_blocking_pids(pid), ', ')
           END,
           round(extract(epoch FROM clock_timestamp() - query_start), 1))
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND state = 'active'
   AND (wait_event = 'SyncRep' OR wait_event_type = 'Lock')
 ORDER BY query_start
 LIMIT 1
