-- Those of some aggregate types that have events. Each costs one probe of the index. $1 aggregate_types
SELECT wanted.aggregate_type
  FROM unnest($1::text[]) AS wanted (aggregate_type)
 WHERE EXISTS (
       SELECT
         FROM streams s
        WHERE s.aggregate_type = wanted.aggregate_type)
