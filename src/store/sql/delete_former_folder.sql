-- Forgets a folder that was deleted. $1 folder
DELETE FROM former_folders
 WHERE folder = $1
