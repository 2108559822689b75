-- Writes the table of snapshots again, without its dead rows. VACUUM FULL would copy those that an older snapshot of a
-- session still sees. An ALTER TABLE with an expression copies the live rows only.
ALTER TABLE snapshots
ALTER COLUMN state TYPE jsonb
      USING CASE WHEN version > 0 THEN state END
