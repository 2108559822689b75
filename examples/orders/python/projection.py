"""A projection of the orders: a table in SQLite, which service.py reads.

    python projection.py --annals http://127.0.0.1:8080 --database orders.db

The effect of each batch of events and the cursor are stored in one transaction. So `kill -9` at any moment loses
nothing and applies nothing twice: the next run begins after the last event whose effect was stored.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
import time

from annals_client import Annals, EpochChanged, Event

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer TEXT, status TEXT, open INTEGER);
CREATE TABLE IF NOT EXISTS cursor (cursor TEXT, events INTEGER);
INSERT INTO cursor SELECT '0', 0 WHERE NOT EXISTS (SELECT 1 FROM cursor);
"""


class Projection:
    def __init__(self, database: str, delay: float = 0) -> None:
        self.database = sqlite3.connect(database)
        self.database.execute("PRAGMA journal_mode = WAL")  # Readers do not wait for the writer.
        self.database.executescript(SCHEMA)
        self.delay = delay

    @property
    def cursor(self) -> str:
        return str(self.database.execute("SELECT cursor FROM cursor").fetchone()[0])

    def handle(self, events: list[Event], cursor: str) -> None:
        with self.database:
            for event in events:
                self.apply(event)
                time.sleep(self.delay)
            self.database.execute("UPDATE cursor SET cursor = ?, events = events + ?", [cursor, len(events)])

    def apply(self, event: Event) -> None:
        order, data = event["aggregate_id"], event["event_data"]
        if data is None:
            return  # The content of the event is erased.
        match event["event_type"]:
            case "OrderPlaced":
                row = order, data["customer"], "placed", data["total"]
                self.database.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", row)
            case "PaymentReceived":
                # Not repeatable: an event that is applied twice would be noticed.
                self.database.execute("UPDATE orders SET open = open - ? WHERE id = ?", [data["amount"], order])
            case "OrderPaid":
                self.database.execute("UPDATE orders SET status = 'paid' WHERE id = ?", [order])
            case "OrderCancelled":
                self.database.execute("UPDATE orders SET status = 'cancelled' WHERE id = ?", [order])

    def rebuild(self, change: EpochChanged) -> int:
        """Discards everything: the table does not say which event has changed a row."""
        print(f"{change}: rebuilding", file=sys.stderr)
        with self.database:
            self.database.execute("DELETE FROM orders")
            self.database.execute("UPDATE cursor SET cursor = '0', events = 0")
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Stores the orders in a table.")
    parser.add_argument("--annals", default="http://127.0.0.1:8080", help="URL of Annals (%(default)s)")
    parser.add_argument("--database", default="orders.db", help="file of the table (%(default)s)")
    parser.add_argument("--until-caught-up", action="store_true", help="stop at the end of the log")
    parser.add_argument("--slow", type=float, default=0, metavar="SECONDS", help="sleep after each event")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    projection = Projection(options.database, options.slow)
    with Annals(options.annals, os.environ.get("ANNALS_KEY")) as client:
        client.project(
            "orders",
            {"aggregate_type": "Order"},
            projection.handle,
            after=projection.cursor,
            on_rewind=projection.rebuild,
            until_caught_up=options.until_caught_up,
        )


if __name__ == "__main__":
    main()
