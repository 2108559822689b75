#!/usr/bin/env python3
"""A worker of a consumer group. It stores a mail for each event of an order in a database of its own.

    group_worker.py URL GROUP DATABASE          group_worker.py http://localhost:8080 mailer mails.sqlite

Start several: each event is handled by one of them, and those of a stream in order. Each mail is stored once, although
`kill -9` may end a worker at any moment. If a handler fails, the group parks the stream and tries the event again.
ANNALS_KEY is an API key. docs/how-to/share-work-among-workers.md explains the program. It needs Python 3.9 alone.
"""
import atexit
import json
import os
import signal
import sqlite3
import sys
import time
import uuid
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

if len(sys.argv) != 4:
    sys.exit("usage: group_worker.py URL GROUP DATABASE")
CLAIMS = f"{sys.argv[1]}/groups/{sys.argv[2]}/claims"
HEADERS = {"Content-Type": "application/json"}
if "ANNALS_KEY" in os.environ:
    HEADERS["Authorization"] = "Bearer " + os.environ["ANNALS_KEY"]
WORKER = {"worker": f"mailer-{os.getpid()}"}


def work(claim):
    """Handles the events of a claim, acknowledges the claim, and returns the next one."""
    path, failed, parked, extended = f"/{claim['claim_id']}", [], set(), time.monotonic()
    for event in claim["events"]:
        if stream_of(event) in parked:
            continue  # It waits behind the failed event.
        if time.monotonic() - extended > 10:  # The last acknowledgement again extends the lease.
            send("PUT", path, {"last_processed_position": claim["last_processed_position"]})
            extended = time.monotonic()
        try:
            handle(claim, event)
        except Exception as error:
            parked.add(stream_of(event))
            failed.append({"global_position": event["global_position"], "reason": repr(error)[:1000]})
    done = {"last_processed_position": claim["claimed_to"], "failed": failed}
    return send("PUT", f"{path}?next=true&limit=100&wait=20", done)["claim"]


def run():
    """Works until a signal ends the program, which then releases its claim."""
    claim = None
    atexit.register(lambda: claim and send("DELETE", f"/{claim['claim_id']}"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    while True:
        try:
            claim = work(claim) if claim else send("POST", "?limit=100&wait=20", WORKER)
        except HTTPError as error:
            problem, claim = json.load(error), None
            if problem["code"] != "claim_lost":  # Another worker has the events of a lost claim.
                sys.exit(f"{problem['code']}: {problem['detail']}")


def send(method, path, body=None):
    """Repeats a request until it has a result. With the same key, a repeated request finds the same claim."""
    data, headers = json.dumps(body).encode() if body else None, {**HEADERS, "Idempotency-Key": str(uuid.uuid4())}
    while True:
        try:
            with urlopen(Request(CLAIMS + path, data, headers, method=method), timeout=90) as response:
                return json.loads(response.read() or "null")  # 204 has no body: there is no claim at this time.
        except (OSError, HTTPException) as error:  # Also a connection that is refused or lost.
            if getattr(error, "code", 503) not in (429, 503):
                raise
            print(f"{CLAIMS}: {error}: again in 2 s", file=sys.stderr)
            time.sleep(2)


# The effect: a row for each event, and a row for each stream, in one transaction.

db = sqlite3.connect(sys.argv[3], timeout=60)
db.executescript("""
    CREATE TABLE IF NOT EXISTS mails (stream TEXT, version INTEGER, address TEXT);
    CREATE TABLE IF NOT EXISTS streams (stream TEXT PRIMARY KEY, version INTEGER, epoch INTEGER, claim INTEGER);
""")
MARK = """
    INSERT INTO streams VALUES (?, ?, ?, ?) ON CONFLICT (stream) DO UPDATE
       SET version = excluded.version, epoch = excluded.epoch, claim = excluded.claim
     WHERE version < excluded.version AND (epoch, claim) <= (excluded.epoch, excluded.claim)
"""


def stream_of(event):
    return f"{event['aggregate_type']}/{event['aggregate_id']}"


def handle(claim, event):
    """Stores the mail of an event. An exception is a failure of the event."""
    epoch, _, number = claim["claim_id"].split(".")
    with db:
        # No row: the event was handled before, or a later claim has handled events of the stream.
        if db.execute(MARK, (stream_of(event), event["version"], int(epoch), int(number))).rowcount == 1:
            mail = stream_of(event), event["version"], event["event_data"]["email"]
            db.execute("INSERT INTO mails VALUES (?, ?, ?)", mail)


if __name__ == "__main__":
    run()
