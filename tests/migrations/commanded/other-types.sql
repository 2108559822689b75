-- The other type of payloads that the schema of commanded/eventstore may have.
ALTER TABLE events ALTER COLUMN data TYPE jsonb USING convert_from(data, 'UTF8')::jsonb;
ALTER TABLE events ALTER COLUMN metadata TYPE jsonb USING convert_from(metadata, 'UTF8')::jsonb;
