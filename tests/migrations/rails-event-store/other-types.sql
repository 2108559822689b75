-- The type of payloads that Rails Event Store has with the data type binary.
ALTER TABLE event_store_events ALTER COLUMN data TYPE bytea USING convert_to(data::text, 'UTF8');
ALTER TABLE event_store_events ALTER COLUMN metadata TYPE bytea USING convert_to(metadata::text, 'UTF8');
