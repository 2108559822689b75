#!/bin/sh
# A projection in sh and curl: how many packages are in which status, kept up to date by polling the log of Annals.
#
#     projection.sh [--once] URL STATE_FILE      projection.sh --once http://localhost:8080 package-states.tsv
#
# The first line of the state file is the cursor, `#<TAB>epoch:position<TAB>events`; the others are
# `aggregate_id<TAB>status`. Both are replaced in one step (mv), so neither is ever newer than the other, and `kill -9`
# does no harm. (Against a loss of power the file would have to be synced before, as projection.py does.)
#
# ANNALS_PROJECTION is the projection's name in Annals. Exit status 3: the log has changed under the cursor.
# 4: another instance runs.
set -eu

wait=30
if [ "${1-}" = --once ]; then wait=0; shift; fi
[ $# = 2 ] || { echo "usage: projection.sh [--once] URL STATE_FILE" >&2; exit 2; }
log="${1%/}/events" projection=${1%/}/projections/${ANNALS_PROJECTION:-package-states-sh}
# With the process id: if only the shell is killed, curl or awk may live on and write, beside the next run's.
state=$2 answer=$2.$$.answer new=$2.$$.new
rm -f "$state".*.answer "$state".*.new
trap 'rm -f "$answer" "$new"' EXIT
trap 'exit 0' INT TERM

# A member of the answer. Enough for the answers it is used on; for others take a JSON parser.
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$answer"; }
detail() { sed -n 's/.*"detail":"\([^"]*\)".*/\1/p' "$answer"; }

# The body goes to $answer, the status to $status: 000 if the answer is not whole. (curl does not mind if it ends within
# the headers, and leaves the file as it is if there is no body.)
request() {
    : > "$answer"
    status=$(curl -sS --max-time 90 -o "$answer" -w '%{http_code}' "$@") || status=000
    [ -s "$answer" ] || status=000
}

# A request that is made until it succeeds. 503 passes, and so does a restart of the server.
get() {
    while request "$@"; [ "$status" != 200 ]; do
        case $status in
            000 | 429 | 5??) echo "no answer ($status), trying again" >&2; sleep 2 ;;
            409)
                echo "409 epoch_changed: $(detail)" >&2
                echo "The state cannot undo what came after $(number rewind_to). To begin anew, delete it and the" >&2
                echo "position (curl -X DELETE $projection)" >&2
                exit 3 ;;
            *) cat "$answer" >&2; exit 1 ;;
        esac
    done
}

# Tells Annals the position by compare-and-set, so that two instances notice each other.
expected=
tell() {
    if [ -z "$expected" ]; then # At the start; and when an answer was lost, nobody knows whether it was moved.
        request "$projection"
        case $status in
            200) expected="If-Match: \"$(number last_processed_position)\"" ;;
            404) expected='If-None-Match: *' ;;
            *) echo "position not told ($status); the next one will do" >&2; return ;;
        esac
    fi
    request -X PUT "$projection" -H "$expected" -H 'Content-Type: application/json' \
        -d "{\"last_processed_position\": $1}"
    case $status in
        200 | 201) expected="If-Match: \"$1\"" ;;
        409 | 412) echo "$(detail). Another instance moves it, or $state is not the latest: stopping" >&2; exit 4 ;;
        000 | 429 | 5??) expected=; echo "position not told ($status); the next one will do" >&2 ;;
        *) cat "$answer" >&2; exit 1 ;;
    esac
}

# Makes the new state of the state and the events of $answer. Without an end line the answer is not whole: it fails.
fold() {
    awk -F '\t' -v OFS='\t' -v epoch="$epoch" '
        # The string behind a key. There are no escapes in these data; for others take a JSON parser.
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
get "$log?after=$cursor&limit=1" # Before the position is told: does the cursor still mean what it did?
tell "${cursor#*:}"
hold=0 shown=
while :; do
    # A page first: it can be held until there is something (long poll), and it has the epoch, which lines have not.
    get "$log?aggregate_type=Package&after=$cursor&limit=1&wait=$hold"
    epoch=$(number epoch)
    get -H 'Accept: application/x-ndjson' "$log?aggregate_type=Package&after=$epoch:${cursor#*:}&limit=500"
    fold || { echo "the lines broke off, reading them again" >&2; sleep 1; continue; }
    mv "$new" "$state"
    before=$events hold=0
    read_state
    tell "${cursor#*:}"
    [ "$events" = "$before" ] || continue
    hold=$wait
    if [ "$events" != "$shown" ]; then
        echo "$events events up to $cursor"
        sed 1d "$state" | cut -f 2 | sort | uniq -c | sort -rn
        shown=$events
    fi
    [ "$wait" != 0 ] || exit 0
done
