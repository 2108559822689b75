#!/bin/sh
# A worker of a consumer group in sh, curl and jq. It runs a command for each event, with the event on standard input:
#
#     group-worker.sh URL GROUP COMMAND [ARGUMENT …]      group-worker.sh http://localhost:8080 mailer ./send-mail
#
# If the exit status of the command is not 0, the event has failed, and the last line of its standard error is the
# reason. If the worker is killed, another worker gets the event once the lease has ended, so a command can run twice
# for one event. ANNALS_KEY is an API key. docs/how-to/share-work-among-workers.md explains the script.
set -u
[ $# -ge 3 ] || { echo 'usage: group-worker.sh URL GROUP COMMAND [ARGUMENT …]' >&2; exit 2; }
claims=${1%/}/groups/$2/claims work=$(mktemp -d) && : > "$work/answer" && shift 2

annals() {
    curl --no-progress-meter -m 90 -H 'Content-Type: application/json' ${ANNALS_KEY:+-H "Authorization: Bearer $ANNALS_KEY"} "$@"
}

# Writes the response to $work/answer. Temporary errors are retried. A lost claim is not an error of the worker.
call() {
    : > "$work/answer"
    status=$(annals --retry 1000 --retry-delay 2 --retry-all-errors -o "$work/answer" -w '%{http_code}' "$@")
    case $status in 2??) ;; *) grep '"claim_lost"' "$work/answer" >&2 || { cat "$work/answer" >&2; exit 1; } ;; esac
}

# Prints a member of the claim in the response. Fails if the response has no claim.
claim() { jq -cr "(.claim // .) | $1 // empty" "$work/answer" | grep .; }

# Extends the lease while a slow command runs: repeats the last acknowledgement. Ends with the worker.
extend() {
    while sleep 10 && kill -0 $$; do
        body=$(claim '{last_processed_position}') && annals -X PUT "$claims/$(claim .claim_id)" -d "$body"
    done
}

extend > "$work/extended" 2>&1 &
trap 'annals -o "$work/released" -X DELETE "$claims/$(claim .claim_id)"; kill $! 2> "$work/killed"; rm -r "$work"' EXIT
trap 'exit 0' INT TERM
while :; do
    if claim '.events[0]' > "$work/event"; then
        "$@" < "$work/event" 2> "$work/errors"
        body=$(jq -c --arg status $? --rawfile errors "$work/errors" '{last_processed_position: .global_position,
            failed: [select($status != "0") | {global_position, reason: ([$errors | splits("\n") | select(test("\\S"))]
                | last // "exit status \($status)")[:1000]}]}' "$work/event")
        call -X PUT "$claims/$(claim .claim_id)?next=true&limit=1&wait=20" -d "$body"
    else
        call -X POST "$claims?limit=1&wait=20" -d "{\"worker\": \"$(uname -n)-$$\"}"
    fi
done
