#!/usr/bin/env bash
# Runs a command, such as the tests of a service, with an Annals that has an empty store, and removes the store:
#
#     examples/with-annals.sh python -m pytest
#
# The command finds the URL in ANNALS_URL. ANNALS_BIN names the program (default: annals). It starts a PostgreSQL of its
# own, from the programs on the system or in ANNALS_PG_BIN. docs/how-to/test-in-ci.md has more.
set -euo pipefail

folder=$(mktemp -d)
# If Annals runs as root, it starts PostgreSQL as another user, which must be able to enter the folder.
chmod 711 "$folder"
unset DATABASE_URL DATABASE_HOST
ANNALS_DATA_DIR=$folder/data ANNALS_LISTEN=127.0.0.1:0 ANNALS_LOG=json "${ANNALS_BIN:-annals}" serve 2>"$folder/log" &
annals=$!
trap 'kill "$annals" 2>/dev/null || true; wait "$annals" || true; rm -rf "$folder"' EXIT

# The service listens on a free port, and says which one when it accepts requests.
until ANNALS_URL=$(sed -nE 's/.*"listening on (http[^"]+)".*/\1/p' "$folder/log") && [[ $ANNALS_URL ]]; do
    kill -0 "$annals" 2>/dev/null || {
        cat "$folder/log" >&2
        exit 1
    }
    sleep 0.1
done
export ANNALS_URL
"$@"
