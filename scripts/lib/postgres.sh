# shellcheck shell=bash
# Finds the PostgreSQL installations of a machine. Sourced by the scripts beside this folder, which run on macOS too, so
# it works in bash 3.2. `annals serve` searches the same places.

# The tests of the scripts put a folder of their own in front of the absolute paths.
system_root=${ANNALS_SCRIPTS_SYSTEM_ROOT:-}

# Prints the folder in which Annals keeps its own state where ANNALS_DATA_DIR is not set.
default_state_folder() {
    if [ "$(id -u)" = 0 ]; then
        echo "$system_root/var/lib/annals"
    elif [ "$(uname -s)" = Darwin ]; then
        echo "$HOME/Library/Application Support/annals"
    else
        echo "${XDG_STATE_HOME:-$HOME/.local/state}/annals"
    fi
}

state_folder() {
    echo "${ANNALS_DATA_DIR:-$(default_state_folder)}"
}

# Prints the major version of the programs in the folder $1; fails where the folder is not an installation.
postgres_major() {
    local major
    [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
    major=$("$1/postgres" --version 2>/dev/null | sed -nE 's/^[^0-9]*([0-9]+).*/\1/p')
    [ -n "$major" ] && echo "$major"
}

# Prints every folder that may hold `postgres` and `initdb`, one a line.
postgres_folders() {
    local state folder
    state=$(state_folder)
    printf '%s\n' "$state"/postgresql/*/bin
    printf '%s\n' "$(default_state_folder)"/postgresql/*/bin
    if folder=$(command -v initdb); then
        dirname "$folder"
    fi
    printf '%s\n' \
        "$system_root"/usr/lib/postgresql/*/bin \
        "$system_root"/usr/pgsql-*/bin \
        "$system_root"/opt/homebrew/opt/postgresql@*/bin \
        "$system_root"/usr/local/opt/postgresql@*/bin \
        "$system_root"/usr/local/pgsql/bin \
        "$system_root"/Applications/Postgres.app/Contents/Versions/*/bin
}

# Prints the first folder with a PostgreSQL of the major version $1 or newer, or of exactly $1 where $2 is `exactly`.
find_postgres() {
    local wanted=$1 how=${2:-or-newer} folder major
    while IFS= read -r folder; do
        major=$(postgres_major "$folder") || continue
        if [ "$major" = "$wanted" ] || { [ "$how" = or-newer ] && [ "$major" -gt "$wanted" ]; }; then
            echo "$folder"
            return 0
        fi
    done <<FOLDERS
$(postgres_folders)
FOLDERS
    return 1
}
