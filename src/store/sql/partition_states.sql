-- The states of the partitions of a group, with the time of the database, the epoch of the log, and the time of the next
-- retry. $1 group_no, $2 the number of partitions
SELECT s.partition, s.step, s.kind, s.partitions, s.epoch, s.last_processed_position, s.claim_step, s.claimed_to,
       s.claimed_until, s.parked_type::text, s.parked_id::text, s.parked_position, s.is_complete, s.not_before,
       s.careful_to, s.expired_leases, s.parked, s.newly_parked, s.worker::text, s.claim_key, s.key_use, s.stepped_at,
       clock_timestamp() AS now,
       (SELECT max(e.epoch) FROM epochs e) AS log_epoch,
       (SELECT min(k.retry_at) FROM parked_streams k WHERE k.group_no = $1) AS next_retry_at
  FROM partition_states(p_group_no => $1, p_partitions => $2) AS s
 ORDER BY s.partition
