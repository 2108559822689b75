"""Annals: its commands, and a service, on a PostgreSQL of their own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stores import Process, wait_until

COMMAND_SECONDS = 180
START_SECONDS = 90
LINES = "application/x-ndjson"
CLOUD_EVENTS = "application/cloudevents-batch+json"
EVENT_STREAM = "text/event-stream"


@dataclass
class Ended:
    status: int
    output: str
    errors: str

    def __str__(self) -> str:
        return f"status {self.status}\n{self.output}{self.errors}"


@dataclass
class Response:
    status: int
    body: bytes


class Annals:
    """A store of events, with an archive in an object store."""

    def __init__(self, work: Path, settings: dict[str, str]) -> None:
        self.program = os.environ["ANNALS_BIN"]
        self.work = work
        self.data = work / "data"
        foreign = ("DATABASE_", "ANNALS_", "ARCHIVE_", "AWS_", "AZURE_", "GOOGLE_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        # A proxy of the machine must not receive the requests for the object store.
        own = {name: value for name, value in own.items() if not name.lower().endswith("_proxy")}
        if "ANNALS_PG_BIN" in os.environ:
            own["ANNALS_PG_BIN"] = os.environ["ANNALS_PG_BIN"]
        self.environment = {**own, "ANNALS_DATA_DIR": str(self.data), "ANNALS_LOG": "json", **settings}
        self.service: Process | None = None
        self.commands: list[subprocess.Popen[str]] = []
        self.log = work / "serve.log"
        self.address = ("", 0)

    def start(self, *command: str, **settings: str) -> subprocess.Popen[str]:
        """Starts a command."""
        child = subprocess.Popen(
            [self.program, *command],
            env={**self.environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.commands.append(child)
        return child

    def run(self, *command: str, **settings: str) -> Ended:
        """Runs a command to its end."""
        child = self.start(*command, **settings)
        output, errors = child.communicate(timeout=COMMAND_SECONDS)
        with (self.work / "commands.log").open("a") as log:
            log.write(f"$ annals {' '.join(command)}\n{output[:2000]}{errors[-4000:]}[{child.returncode}]\n")
        return Ended(child.returncode, output, errors)

    def serve(self, **settings: str) -> None:
        """Starts the service, and waits until it listens."""
        self.log.write_bytes(b"")
        environment = {**self.environment, "ANNALS_LISTEN": "127.0.0.1:0", **settings}
        self.service = Process([self.program, "serve"], self.log, environment)

        def address() -> str | None:
            assert self.service
            self.service.check_runs()
            for line in self.log.read_text(errors="replace").splitlines():
                _, found, rest = line.partition("listening on ")
                if found:
                    return rest.split('"')[0]
            return None

        wait_until("the service does not listen", START_SECONDS, address)
        url = urlsplit(address() or "")
        self.address = (str(url.hostname), int(url.port or 0))

    def stop(self) -> None:
        if self.service:
            status, self.service = self.service.stop(), None
            if status != 0:
                raise AssertionError(f"the service ended with status {status}:\n{self.log.read_text()[-2000:]}")

    def end(self) -> None:
        """Ends all commands and the service, and a PostgreSQL that they have left."""
        for command in self.commands:
            if command.poll() is None:
                command.kill()
                command.wait()
        if self.service:
            self.service.stop()
        for pid_file in self.data.glob("**/postmaster.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)

    def request(self, method: str, path: str, body: object = None, accept: str = "*/*") -> Response:
        connection = http.client.HTTPConnection(*self.address, timeout=120)
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return Response(response.status, content)

    def get(self, path: str, accept: str = "*/*") -> bytes:
        response = self.request("GET", path, accept=accept)
        if response.status != 200:
            raise AssertionError(f"GET {path}: {response.status} {response.body[:600].decode(errors='replace')}")
        return response.body

    def follow(self, path: str) -> bytes:
        """Reads an event stream up to the frame `caught-up`. Returns the frames of the events."""
        connection = http.client.HTTPConnection(*self.address, timeout=120)
        connection.request("GET", path, headers={"Accept": EVENT_STREAM})
        response = connection.getresponse()
        if response.status != 200:
            raise AssertionError(f"GET {path}: {response.status} {response.read()[:600]!r}")
        lines: list[bytes] = []
        while (line := response.readline()) != b"event: caught-up\n":
            if not line:
                raise AssertionError(f"the event stream {path} ended after {len(lines)} lines")
            if line.startswith((b"id:", b"data:")):
                lines.append(line)
        connection.close()
        return b"".join(lines)

    def read(self, paths: Iterable[tuple[str, str]]) -> dict[str, bytes]:
        """Reads each path in a representation. Returns the bodies."""
        return {
            f"{path} as {accept}": self.follow(path) if accept == EVENT_STREAM else self.get(path, accept)
            for path, accept in paths
        }

    def partitions(self) -> dict[str, dict[str, object]]:
        """Returns the partitions by name."""
        tables = json.loads(self.get("/stats/tables"))["tables"]
        return {entry["name"]: entry for table in tables for entry in table.get("partitions") or []}
