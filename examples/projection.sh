#!/bin/sh
# A projection in sh and curl that counts packages by status, kept up to date by polling the log of Annals.
#
#     projection.sh [--once] URL STATE_FILE      projection.sh --once http://localhost:8080 package-states.tsv
#
# The first line of the state file is the cursor, `#<TAB>epoch:position<TAB>events`. The others are
# `aggregate_id<TAB>status`. Both are replaced in one step (mv), so neither is ever newer than the other, and `kill -9`
# does no harm. (To survive a loss of power, the file would have to be synced first, as projection.py does.)
#
# ANNALS_PROJECTION is the name of the projection in Annals. Exit status 3: the epoch of the cursor has ended before it.
# Exit status 4: another instance moves the position. docs/tutorial/first-projection.md is a lesson with this script.
set -eu

wait=30
if [ "${1-}" = --once ]; then wait=0; shift; fi
[ $# = 2 ] || { echo "usage: projection.sh [--once] URL STATE_FILE" >&2; exit 2; }
log="${1%/}/events" projection=${1%/}/projections/${ANNALS_PROJECTION:-package-states-sh}
# The names contain the process id: if only the shell is killed, curl or awk may still write while the next run begins.
state=$2 answer=$2.$$.answer new=$2.$$.new
rm -f "$state".*.answer "$state".*.new
trap 'rm -f "$answer" "$new"' EXIT
trap 'exit 0' INT TERM

# Prints a member of the answer. Sufficient for these answers; use a JSON parser for others.
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$answer"; }
detail() { sed -n 's/.*"detail":"\([^"]*\)".*/\1/p' "$answer"; }

# Writes the body to $answer and the status to $status. The status is 000 if the answer is incomplete. (curl does not
# fail if the answer ends within the headers, and does not touch the file if there is no body.)
request() {
    : > "$answer"
    status=$(curl -sS --max-time 90 -o "$answer" -w '%{http_code}' "$@") || status=000
    [ -s "$answer" ] || status=000
}

# Repeats a request until it succeeds. 503 and a restart of the server are temporary.
get() {
    while request "$@"; [ "$status" != 200 ]; do
        case $status in
            000 | 429 | 5??) echo "no answer ($status), retrying" >&2; sleep 2 ;;
            409)
                echo "409 epoch_changed: $(detail)" >&2
                echo "The state cannot undo the events after $(number rewind_to). To rebuild it, delete the" >&2
                echo "state file and the position (curl -X DELETE $projection)" >&2
                exit 3 ;;
            *) cat "$answer" >&2; exit 1 ;;
        esac
    done
}

# Reports the position to Annals by compare-and-set, so that two instances detect each other.
expected=
report() {
    if [ -z "$expected" ]; then # At the start, and after a lost answer: the position may have been moved or not.
        request "$projection"
        case $status in
            200) expected="If-Match: \"$(number last_processed_position)\"" ;;
            404) expected='If-None-Match: *' ;;
            *) echo "position not reported ($status); the next one will do" >&2; return ;;
        esac
    fi
    request -X PUT "$projection" -H "$expected" -H 'Content-Type: application/json' \
        -d "{\"last_processed_position\": $1}"
    case $status in
        200 | 201) expected="If-Match: \"$1\"" ;;
        409 | 412) echo "$(detail). Another instance moves it, or $state is not the latest: stopping" >&2; exit 4 ;;
        000 | 429 | 5??) expected=; echo "position not reported ($status); the next one will do" >&2 ;;
        *) cat "$answer" >&2; exit 1 ;;
    esac
}

# Computes the new state from the state and the events in $answer. Fails if the end line is missing: the answer is
# incomplete.
fold() {
    awk -F '\t' -v OFS='\t' -v epoch="$epoch" '
        # Returns the string after a key. These data contain no escapes; use a JSON parser for others.
        function text(json, key) {
            if (!index(json, key)) return ""
            json = substr(json, index(json, key) + length(key))
            return substr(json, 1, index(json, "\"") - 1)
        }
        FNR == 1 { file++ }
        file == 1 && FNR == 1 { events = $3; next }
        file == 1 { status[$1] = $2; next }
        index($0, "{\"end\":") == 1 { to = substr($0, index($0, "\"next_after\":") + 13); next }
        {
            events++
            data = substr($0, index($0, "\"event_data\":"))
            data = substr(data, 1, index(data, "\"metadata\":"))
            if (text(data, "\"status\": \"")) status[text($0, "\"aggregate_id\":\"")] = text(data, "\"status\": \"")
        }
        END {
            if (!sub("[^0-9].*", "", to)) exit 1
            print "#", epoch ":" to, events
            for (id in status) print id, status[id]
        }' "$state" "$answer" > "$new"
}

if [ ! -e "$state" ]; then
    get "$log?after=head&limit=1"
    printf '#\t%s:0\t0\n' "$(number epoch)" > "$new"
    mv "$new" "$state"
fi

read_state() { IFS='	' read -r _ cursor events < "$state"; }
read_state
get "$log?after=$cursor&limit=1" # Checks the epoch of the cursor before the position is reported.
report "${cursor#*:}"
hold=0 shown=
while :; do
    # A page first: the server can hold it until an event arrives (long poll), and it contains the epoch, unlike lines.
    get "$log?aggregate_type=Package&after=$cursor&limit=1&wait=$hold"
    epoch=$(number epoch)
    get -H 'Accept: application/x-ndjson' "$log?aggregate_type=Package&after=$epoch:${cursor#*:}&limit=500"
    fold || { echo "the lines were incomplete, reading them again" >&2; sleep 1; continue; }
    mv "$new" "$state"
    before=$events hold=0
    read_state
    report "${cursor#*:}"
    [ "$events" = "$before" ] || continue
    hold=$wait
    if [ "$events" != "$shown" ]; then
        echo "$events events up to $cursor"
        sed 1d "$state" | cut -f 2 | sort | uniq -c | sort -rn
        shown=$events
    fi
    [ "$wait" != 0 ] || exit 0
done
