-- Returns the end of the log: the position and the time after which the next event is written, and the start of the
-- oldest partition that is not sealed.
--
-- The position is at least the end of the sealed partitions and the end of the previous epoch: an epoch may begin after
-- a gap, and a restored database may have lost its open partitions. The time is NULL if no open partition has an event.
--
-- Locks: the caller holds the append lock. Plans: those of the caller.
CREATE OR REPLACE FUNCTION end_of_log(
    OUT log_position bigint,
    OUT log_time timestamptz,
    OUT open_from timestamptz
)
LANGUAGE plpgsql
VOLATILE
AS $$
DECLARE
    v_at_least bigint;
BEGIN
    SELECT (SELECT p.starts_at
              FROM partitions p
             WHERE p.sealed_at IS NULL
             ORDER BY p.starts_at
             LIMIT 1),
           greatest(
               coalesce((SELECT p.last_position
                           FROM partitions p
                          WHERE p.sealed_at IS NOT NULL
                          ORDER BY p.starts_at DESC
                          LIMIT 1), 0),
               (SELECT o.first_position - 1
                  FROM epochs o
                 ORDER BY o.epoch DESC
                 LIMIT 1))
      INTO open_from, v_at_least;
    SELECT l.global_position, l.occurred_at
      INTO log_position, log_time
      FROM last_event(open_from) AS l;
    log_position := greatest(log_position, v_at_least);
END
$$;

REVOKE ALL ON FUNCTION end_of_log FROM PUBLIC;
