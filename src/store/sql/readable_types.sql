-- The aggregate types of the log that begin with one of some prefixes. Each type costs one probe of the index.
-- $1 prefixes, $2 the largest number of types for each prefix
SELECT found.aggregate_type::text
  FROM unnest($1::text[]) AS wanted (prefix)
 CROSS JOIN LATERAL (
       WITH RECURSIVE types AS (
           (
           SELECT s.aggregate_type
             FROM streams s
            WHERE s.aggregate_type >= wanted.prefix
            ORDER BY s.aggregate_type
            LIMIT 1)
           UNION ALL
           SELECT (
                  SELECT s.aggregate_type
                    FROM streams s
                   WHERE s.aggregate_type > t.aggregate_type
                   ORDER BY s.aggregate_type
                   LIMIT 1)
             FROM types t
            WHERE starts_with(t.aggregate_type, wanted.prefix)
       )
       SELECT t.aggregate_type
         FROM types t
        WHERE starts_with(t.aggregate_type, wanted.prefix)
        LIMIT $2) AS found
