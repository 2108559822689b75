-- Archive: months that have left the database, and how one comes back.

SET LOCAL lock_timeout = '3s';

-- archived_to names the month's folder in the archive as soon as somebody begins to write it; archived_at says that it is
-- complete and verified: from then on the month is read there, and its table may go. archive_changes counts how often the
-- month went or came: whoever reads looks at it before and after, and knows whether what was read can be relied on.
-- restored_at keeps a month that somebody has brought back from being archived again by itself.
ALTER TABLE partitions
    ADD COLUMN first_occurred_at timestamptz,
    ADD COLUMN last_occurred_at  timestamptz,
    ADD COLUMN archived_at       timestamptz,
    ADD COLUMN archive_sha256    text,
    ADD COLUMN archive_changes   integer NOT NULL DEFAULT 0,
    ADD COLUMN restored_at       timestamptz,
    ADD CONSTRAINT partitions_archive_complete CHECK (
        archived_at IS NULL
        OR (rolled_up_at IS NOT NULL AND archived_to IS NOT NULL AND archive_sha256 IS NOT NULL));

UPDATE partitions p
   SET first_occurred_at = (
           SELECT e.occurred_at
             FROM events e
            WHERE e.occurred_at >= p.starts_at
              AND e.occurred_at < p.ends_at
            ORDER BY e.global_position
            LIMIT 1),
       last_occurred_at = (
           SELECT e.occurred_at
             FROM events e
            WHERE e.occurred_at >= p.starts_at
              AND e.occurred_at < p.ends_at
            ORDER BY e.global_position DESC
            LIMIT 1)
 WHERE p.rolled_up_at IS NOT NULL;
