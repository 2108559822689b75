"""A proxy in front of an object store. It forwards requests, and disturbs those that a fault selects.

A fault selects requests by their kind ("put", "upload-part" and so on), and says how often it acts. The proxy counts
every request and every disturbance, so that a check can prove that its fault took place.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

# The longest wait for a client that should close its connection.
GIVE_UP_SECONDS = 60
READS = frozenset({"get", "head"})
WRITES = frozenset({"put", "begin-upload", "upload-part", "complete-upload"})
# Headers of a connection, which are not forwarded.
OF_A_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


def kind_of(method: str, query: dict[str, list[str]]) -> str:
    """Returns what a request does, in the same words for S3 and for Azure."""
    if "partNumber" in query or query.get("comp") == ["block"]:
        return "upload-part"
    if query.get("comp") == ["blocklist"]:
        return "complete-upload"
    if "delete" in query or query.get("comp") == ["batch"]:
        return "delete"
    if "uploads" in query:
        return "begin-upload" if method == "POST" else "list-uploads"
    if "uploadId" in query:
        return "complete-upload" if method == "POST" else "abort-upload"
    if "list-type" in query or query.get("comp") == ["list"]:
        return "list"
    return method.lower()


@dataclass
class Fault:
    """What happens to some requests."""

    kinds: frozenset[str]
    act: Callable[[Exchange], None]
    times: float  # how often; infinity for an outage
    suffix: str = ""  # the end of the key; empty for all
    skip: int = 0  # the selected requests that pass first
    acted: int = 0

    def selects(self, exchange: Exchange) -> bool:
        if exchange.kind not in self.kinds or not exchange.key.endswith(self.suffix) or self.acted >= self.times:
            return False
        self.skip -= 1
        return self.skip < 0


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class Exchange(BaseHTTPRequestHandler):
    """A connection of a client. The attributes describe its current request."""

    server: Proxy
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes, and the second one must not wait for the acknowledgement of the first.
    disable_nagle_algorithm = True
    body = b""

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.kind = kind_of(self.command, parse_qs(url.query, keep_blank_values=True))
        self.key = unquote(url.path)
        self.body, self.length = b"", int(self.headers.get("Content-Length", 0))
        self.unread = self.length
        fault = self.server.select(self)
        if fault:
            fault.act(self)
        else:
            self.forward()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def read_body(self) -> bytes:
        if self.unread:
            self.body, self.unread = self.rfile.read(self.unread), 0
        return self.body

    def upstream(self) -> Answer:
        """Sends the request to the store, and returns the response."""
        body = self.read_body()
        connection = http.client.HTTPConnection(*self.server.store, timeout=GIVE_UP_SECONDS)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "keep-alive"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            headers = response.getheaders()
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def begin(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        length = str(len(answer.body))
        for name, value in answer.headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in OF_A_CONNECTION:
                self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()

    def send(self, answer: Answer) -> None:
        self.begin(answer)
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def forward(self) -> None:
        self.send(self.upstream())

    def send_error_document(self, status: int, azure: str, s3: str) -> None:
        """Sends an error with the code of Azure or of S3."""
        code = azure if self.server.is_azure else s3
        headers = [("Content-Type", "application/xml"), ("x-ms-error-code", code)]
        self.send(Answer(status, headers, f"<Error><Code>{code}</Code></Error>".encode()))

    def reset(self) -> None:
        """Closes the connection as a host does that was switched off: the client gets an error, not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


def refuse(exchange: Exchange) -> None:
    """Asks the client to slow down."""
    exchange.read_body()
    exchange.send_error_document(503, "ServerBusy", "SlowDown")


def forbid(exchange: Exchange) -> None:
    """Refuses the credentials."""
    exchange.read_body()
    exchange.send_error_document(403, "AuthorizationFailure", "AccessDenied")


def withhold(exchange: Exchange) -> None:
    """Lets the store do its work, and withholds the response until the client gives up."""
    exchange.upstream()
    exchange.connection.settimeout(GIVE_UP_SECONDS)
    exchange.server.note_withheld()
    if exchange.connection.recv(1):
        raise AssertionError("the client sent more before it got a response")
    exchange.close_connection = True


def cut_upload(exchange: Exchange) -> None:
    """Closes the connection after the first half of the body. The store gets nothing."""
    exchange.rfile.read(exchange.length // 2)
    exchange.reset()


def cut_download(exchange: Exchange) -> None:
    """Closes the connection after the first half of the response."""
    answer = exchange.upstream()
    exchange.begin(answer)
    exchange.wfile.write(answer.body[: len(answer.body) // 2])
    exchange.wfile.flush()
    exchange.reset()


def hide(exchange: Exchange) -> None:
    """Answers as if the object did not exist yet."""
    exchange.read_body()
    exchange.send_error_document(404, "BlobNotFound", "NoSuchKey")


def change_upload(exchange: Exchange) -> None:
    """Changes one bit on the way to the store, which accepts it."""
    body = bytearray(exchange.read_body())
    body[len(body) // 2] ^= 1
    exchange.body = bytes(body)
    exchange.forward()


def list_nothing(exchange: Exchange) -> None:
    """Answers a list as if the store had no object yet."""
    exchange.read_body()
    empty = (
        "<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"
        if exchange.server.is_azure
        else "<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"
    )
    exchange.send(Answer(200, [("Content-Type", "application/xml")], empty.encode()))


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, store: tuple[str, int], is_azure: bool) -> None:
        super().__init__((host, 0), Exchange)
        self.host = host
        self.store = store
        self.is_azure = is_azure
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        self.withheld = 0
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Does not print the errors of connections that a client closed."""

    def select(self, exchange: Exchange) -> Fault | None:
        """Counts a request, and returns the fault that disturbs it."""
        with self.changed:
            self.requests[exchange.kind] += 1
            for fault in self.faults:
                if fault.selects(exchange):
                    fault.acted += 1
                    self.changed.notify_all()
                    return fault
        return None

    def note_withheld(self) -> None:
        """Notes that the store has done the work of a request whose response is withheld."""
        with self.changed:
            self.withheld += 1
            self.changed.notify_all()
