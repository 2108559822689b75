-- Records that a function file is applied. $1 name, $2 SHA-256 of the file, $3 version of the program
INSERT INTO annals_functions (name, sha256, program_version)
VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE
   SET sha256 = excluded.sha256,
       program_version = excluded.program_version,
       applied_at = clock_timestamp()
