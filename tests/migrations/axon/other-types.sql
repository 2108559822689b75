-- The types that other mappings of Hibernate create.
ALTER TABLE domain_event_entry ALTER COLUMN payload TYPE bytea USING lo_get(payload);
ALTER TABLE domain_event_entry ALTER COLUMN meta_data TYPE text USING convert_from(lo_get(meta_data), 'UTF8');
