-- Records the erasures whose content no file has any more. $1 up to this erasure
UPDATE erasures AS e
   SET removed_at = clock_timestamp()
 WHERE e.erasure <= $1
   AND e.removed_at IS NULL
   AND e.hidden_at IS NOT NULL
   AND NOT EXISTS (
       SELECT
         FROM erasure_months m
        WHERE m.erasure = e.erasure
          AND m.removed_at IS NULL)
