-- The function files that are applied: the name, the SHA-256 and the version of the program that applied each.
SELECT name, sha256, program_version
  FROM annals_functions
