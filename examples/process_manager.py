"""A process manager: requests a payment for each order, confirms paid orders, and cancels those that are not paid.

    python3 examples/process_manager.py --url http://127.0.0.1:8080 --state payments.json --due 900

The cursor and the deadlines are in one file. It is replaced as a whole, after the commands of a page of events were
sent. After `kill -9` the program sends these commands again, with the same keys, and Annals recognises them.
docs/how-to/process-managers.md explains the program. It needs Python 3.9, and no other package.
"""

import argparse
import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

NAME = "payments"
FILTER = "&event_type=OrderPlaced&event_type=PaymentReceived&event_type=PaymentExpired"


class Manager:
    def __init__(self, options):
        self.options, self.file = options, Path(options.state)
        # The deadline of each order without a result, and the event that began it.
        self.state = json.loads(self.file.read_text()) if self.file.exists() else {"cursor": "0", "open": {}}

    def run(self):
        while True:
            page = self.request("GET", f"/events?after={self.state['cursor']}&wait=1&limit=100{FILTER}")
            for event in page["events"]:
                self.react(event)
                time.sleep(self.options.slow)
            if page["at_head"]:  # Before that, the log may have a payment that was not read yet.
                self.expire()
            before, self.state["cursor"] = self.state["cursor"], f"{page['epoch']}:{page['next_after']}"
            self.store()
            if before != self.state["cursor"]:
                self.request("PUT", f"/projections/{NAME}", {"last_processed_position": page["next_after"]})

    def react(self, event):
        """Sends the commands that follow from an event. They contain nothing but what the event has."""
        order = event["aggregate_id"]
        if event["event_type"] == "OrderPlaced":
            self.append("Payment", order, "PaymentRequested", {"amount": event["event_data"]["total"]}, event)
            placed_at = datetime.fromisoformat(event["occurred_at"].replace("Z", "+00:00")).timestamp()
            self.state["open"][order] = {"due": placed_at + self.options.due, "event": event}
        elif event["event_type"] == "PaymentReceived":
            self.state["open"].pop(order, None)
            self.append("Order", order, "OrderConfirmed", {}, event)
        else:  # PaymentExpired: the compensation.
            self.append("Order", order, "OrderCancelled", {"reason": "not paid in time"}, event)

    def expire(self):
        """Ends the payments whose deadline has passed. The version decides between a payment and its end."""
        for order, entry in list(self.state["open"].items()):
            if entry["due"] <= time.time():
                self.append("Payment", order, "PaymentExpired", {}, entry["event"], key="-expired", version=1)
                del self.state["open"][order]

    def append(self, aggregate_type, order, event_type, data, cause, key="", version=None):
        headers = {
            "Idempotency-Key": f"{NAME}-{cause['event_id']}{key}",
            "X-Correlation-Id": cause["correlation_id"] or cause["event_id"],
            "X-Causation-Id": cause["event_id"],
            **({} if version is None else {"If-Match": f'"{version}"'}),
        }
        body = {"events": [{"event_type": event_type, "event_data": data}]}
        try:
            self.request("POST", f"/streams/{aggregate_type}/{quote(order, safe='')}", body, headers)
        except HTTPError as error:
            if error.code != 412:  # Version conflict: the payment has arrived, and its event is next in the log.
                raise

    def request(self, method, path, body=None, headers={}):
        """Repeats a request until it has a result. An error that remains stops the program at this event."""
        if key := os.environ.get("ANNALS_KEY"):
            headers = {**headers, "Authorization": f"Bearer {key}"}
        headers = {**headers, "Content-Type": "application/json"}
        while True:
            try:
                content = json.dumps(body).encode() if body else None
                with urlopen(Request(self.options.url + path, content, headers, method=method), timeout=60) as response:
                    return json.load(response)
            except HTTPError as error:
                if error.code not in (429, 503):
                    raise
                print(error.code, error.read().decode(), file=sys.stderr)
            except (OSError, ValueError) as error:  # No response, or one that was cut off.
                print(error, file=sys.stderr)
            time.sleep(2)

    def store(self):
        new = self.file.with_suffix(".new")
        with open(new, "w") as file:
            json.dump(self.state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Requests, confirms and ends the payments of orders.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="URL of Annals (%(default)s)")
    parser.add_argument("--state", default="payments.json", help="file of the cursor and the deadlines (%(default)s)")
    parser.add_argument("--due", type=float, default=900, help="seconds in which an order must be paid (%(default)s)")
    parser.add_argument("--slow", type=float, default=0, metavar="SECONDS", help="sleep after each event")
    try:
        Manager(parser.parse_args()).run()
    except HTTPError as error:
        sys.exit(f"{error.url}: {error.code} {error.read().decode()}")
