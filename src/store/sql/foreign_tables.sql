-- The names of tables that Annals needs and did not create, as a list; NULL if there are none.
SELECT string_agg(name, ', ')
  FROM unnest(ARRAY[
           'events', 'snapshots', 'projection_positions', 'streams', 'event_ids', 'partitions', 'epochs', 'reducers'])
       AS names (name)
 WHERE to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL
   AND to_regclass(quote_ident(current_schema()) || '.annals_migrations') IS NULL
