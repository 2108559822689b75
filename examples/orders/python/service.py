"""A service that takes orders: commands, with conflicts, and two kinds of reads.

    python service.py --annals http://127.0.0.1:8080 --database orders.db --listen 127.0.0.1:9000

    PUT  /orders/{id}                {"customer": "Ann", "total": 4200}       places an order
    POST /orders/{id}/payments       {"payment_id": "p-1", "amount": 1000}    pays a part of it
    POST /orders/{id}/cancellation   {"reason": "too slow"}
    GET  /orders/{id}[?version=2]    the state, now or in the past, from the reducer that Annals runs
    GET  /orders?status=placed[&position=17]    a list from the database of the projection

A command returns the `position` of its last event. A list with `position` waits until the projection has it, so that a
client finds what it has just written. Run projection.py beside this program.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import domain
from annals_client import (
    Annals,
    AnnalsError,
    EventNotFound,
    NewEvent,
    ProjectionBehind,
    ProjectionNotFound,
    StreamNotFound,
    VersionConflict,
)

Decision = Callable[[domain.Order], list[NewEvent]]


class Orders:
    """The operations of the service, without HTTP."""

    def __init__(self, client: Annals, database: str) -> None:
        self.client = client
        self.database = database
        self.orders = client.aggregate("Order", domain.Order, domain.evolve)
        reducer = {"language": "javascript", "source": Path(__file__).with_name("reducer.js").read_text("utf-8")}
        # The same source again changes nothing, so each instance registers it at its start.
        client.request("PUT", "/reducers/Order", reducer)

    def command(self, order_id: str, decision: Decision) -> dict[str, Any]:
        decided = self.orders.decide(order_id, decision)
        position = decided.appended["global_position"] if decided.appended else None
        return {"id": order_id, "status": decided.state.status, "version": decided.version, "position": position}

    def state(self, order_id: str, version: int | None) -> Any:
        return self.client.state("Order", order_id, version=version)["state"]

    def list(self, status: str, position: int | None) -> list[dict[str, Any]]:
        if position is not None:
            self.client.wait_for("orders", position)
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            rows = database.execute("SELECT id, customer, open FROM orders WHERE status = ? ORDER BY id", [status])
            return [{"id": order_id, "customer": customer, "open": left} for order_id, customer, left in rows]


class Handler(BaseHTTPRequestHandler):
    orders: Orders

    def do_GET(self) -> None:
        self.respond()

    do_PUT = do_POST = do_GET

    def respond(self) -> None:
        try:
            status, body = 200, self.route()
        except domain.Refused as refused:
            status, body = 409, {"error": str(refused)}
        except (StreamNotFound, EventNotFound, LookupError):
            status, body = 404, {"error": "there is no such order, version or path"}
        except (ValueError, TypeError) as error:
            status, body = 400, {"error": f"the request is not valid: {error}"}
        except (ProjectionBehind, ProjectionNotFound):
            status, body = 503, {"error": "the list does not have this position yet"}
        except VersionConflict:
            status, body = 503, {"error": "too many writers change this order"}
        except AnnalsError as error:
            print(error, file=sys.stderr)
            status, body = 503, {"error": "the event store is not available"}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def route(self) -> Any:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        found = re.fullmatch(r"/orders(?:/([^/]+)(/payments|/cancellation)?)?", url.path)
        if found is None:
            raise LookupError(self.path)
        order_id, part = unquote(found[1] or ""), found[2]
        match (self.command, bool(order_id), part):
            case ("GET", False, None):
                if "status" not in query:
                    raise ValueError("the query must have a status")
                return self.orders.list(query["status"], int(query["position"]) if "position" in query else None)
            case ("GET", True, None):
                return self.orders.state(order_id, int(query["version"]) if "version" in query else None)
            case ("PUT", True, None):
                body = self.body("customer", str, "total", int)
                return self.orders.command(order_id, lambda order: domain.place(order, **body))
            case ("POST", True, "/payments"):
                body = self.body("payment_id", str, "amount", int)
                return self.orders.command(order_id, lambda order: domain.pay(order, **body))
            case ("POST", True, "/cancellation"):
                body = self.body("reason", str)
                return self.orders.command(order_id, lambda order: domain.cancel(order, **body))
        raise LookupError(self.path)

    def body(self, *members: Any) -> dict[str, Any]:
        """Returns the members of the body, each of its type."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        expected = dict(zip(members[::2], members[1::2], strict=True))
        if not isinstance(body, dict) or {name: type(value) for name, value in body.items()} != expected:
            raise ValueError(
                "the body must have " + ", ".join(f"{name} ({kind.__name__})" for name, kind in expected.items())
            )
        return body

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description="Takes orders.")
    parser.add_argument("--annals", default="http://127.0.0.1:8080", help="URL of Annals (%(default)s)")
    parser.add_argument("--database", default="orders.db", help="file of the projection (%(default)s)")
    parser.add_argument("--listen", default="127.0.0.1:9000", help="address of this service (%(default)s)")
    options = parser.parse_args()
    Handler.orders = Orders(Annals(options.annals, os.environ.get("ANNALS_KEY")), options.database)
    host, _, port = options.listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    print(f"listening on http://{host}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
