-- Notes a folder that no reader uses, and that is deleted with the erased content of its month. $1 folder, $2 starts_at
INSERT INTO former_folders (folder, starts_at)
VALUES ($1, $2)
