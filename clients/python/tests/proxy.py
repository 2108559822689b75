"""An HTTP server for tests. It forwards requests to a service, and does to a response what a test says.

A test appends to `plan` what happens to the next requests that match: a function that receives the exchange. Requests
without a plan are forwarded unchanged. Without a service, `answer_all` answers every request.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Step = Callable[["Exchange"], None]


@dataclass
class Planned:
    method: str
    prefix: str
    step: Step


class Exchange(BaseHTTPRequestHandler):
    """One request, and its response. Each connection has one exchange, and each response ends with its connection."""

    server: Proxy
    body: bytes = b""

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with self.server.changed:
            self.server.open_connections += 1
            self.server.changed.notify_all()
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            pass
        finally:
            with self.server.changed:
                self.server.open_connections -= 1
                self.server.changed.notify_all()

    def do_GET(self) -> None:
        self.close_connection = True
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.take(self)(self)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    @property
    def route(self) -> str:
        return unquote(urlsplit(self.path).path)

    def answer(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = "application/json" if status < 400 else "application/problem+json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def problem(self, status: int, code: str, headers: dict[str, str] | None = None, **members: object) -> None:
        document = {"type": f"/problems/{code}", "title": code, "status": status, "detail": code, "instance": "r-1"}
        self.answer(status, {**document, "code": code, **members}, headers)

    def upstream(self) -> http.client.HTTPResponse:
        """Sends the request to the service, and returns the response. Its body is not compressed."""
        url = urlsplit(self.server.service)
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
        connection.request(self.command, self.path, self.body or None, headers)
        return connection.getresponse()

    def begin(self, response: http.client.HTTPResponse) -> None:
        """Sends status and headers. The end of the body is the end of the connection, so a cut is not noticed."""
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def forward(self) -> None:
        response = self.upstream()
        self.begin(response)
        threading.Thread(target=self.close_with_client, args=[response], daemon=True).start()
        while chunk := response.read1(65536):
            self.wfile.write(chunk)

    def close_with_client(self, response: http.client.HTTPResponse) -> None:
        """Ends the forwarding when the client closes its connection."""
        try:
            self.connection.recv(1)
        except OSError:
            pass
        self.server.hang_up(response)

    def wait_for_client(self) -> None:
        """Waits until the client closes the connection."""
        try:
            self.connection.recv(1)
        except OSError:
            pass


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service: str = "", answer_all: Step | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.service = service
        self.answer_all = answer_all
        self.plan: list[Planned] = []
        self.requests: list[Exchange] = []
        self.open_connections = 0
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next(self, method: str, prefix: str, *steps: Step) -> None:
        """Plans what happens to the next requests with this method and this beginning of the path."""
        self.plan += [Planned(method, prefix, step) for step in steps]

    def take(self, exchange: Exchange) -> Step:
        with self.changed:
            self.requests.append(exchange)
            self.changed.notify_all()
            for planned in self.plan:
                if planned.method == exchange.command and exchange.route.startswith(planned.prefix):
                    self.plan.remove(planned)
                    return planned.step
        return self.answer_all or Exchange.forward

    def sent(self, method: str, prefix: str = "/") -> list[Exchange]:
        return [sent for sent in self.requests if sent.command == method and sent.route.startswith(prefix)]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=60), "the condition did not become true in a minute"

    @staticmethod
    def hang_up(response: http.client.HTTPResponse) -> None:
        try:
            response.fp.raw._sock.shutdown(2)  # type: ignore[union-attr]
        except (AttributeError, OSError):
            pass

    def handle_error(self, *_: object) -> None:
        """Prints nothing: a client that closes its connection is part of the tests."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def cut(exchange: Exchange) -> None:
    """Passes the request on, and closes the connection without a response."""
    exchange.upstream().read()


def status(code: int, problem: str, **headers: str) -> Step:
    return lambda exchange: exchange.problem(code, problem, {name.replace("_", "-"): headers[name] for name in headers})


def cut_lines(lines: int) -> Step:
    """Passes the request on, sends some lines of the response, and ends it."""

    def step(exchange: Exchange) -> None:
        response = exchange.upstream()
        exchange.begin(response)
        for _ in range(lines):
            exchange.wfile.write(response.readline())

    return step


def silent(exchange: Exchange) -> None:
    """Accepts the request, and sends nothing."""
    exchange.wait_for_client()


def silent_after(text: bytes) -> Step:
    """Passes the request on, and sends the response up to a text. Then it sends nothing more."""

    def step(exchange: Exchange) -> None:
        response = exchange.upstream()
        exchange.begin(response)
        sent = b""
        while text not in sent or not sent.endswith(b"\n\n"):
            line = response.readline()
            exchange.wfile.write(line)
            sent += line
        exchange.wait_for_client()

    return step
