-- Erases events. migrations/functions/erase_events.sql describes the parameters and the locks.
SELECT erase_events(
           p_reason => $1,
           p_request => $2,
           p_requested_by => $3,
           p_members => $4,
           p_positions => $5,
           p_times => $6,
           p_event_ids => $7,
           p_aggregate_types => $8,
           p_aggregate_ids => $9,
           p_versions => $10,
           p_erasure => $11,
           p_requested_at => $12)
