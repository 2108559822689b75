#!/usr/bin/env python3
"""A projection that counts packages by status, kept up to date from the log of Annals.

It follows the log (GET /events as server-sent events) and shows what every projection has to get right:

- Events are delivered at least once. Each counts exactly once, because the effect (the status of each package) and
  the cursor (the last event that is part of it) are stored in one step: here in one file that is replaced as a whole,
  elsewhere in one transaction. Neither is ever newer than the other, so `kill -9` does no harm.
- The position is reported to Annals after the effect is stored, never before, and by compare-and-set. Operators see the
  lag of the projection, clients can wait for a position, and a second instance is detected.
- A lost connection, a restart of the server and 503 are temporary. The program reconnects and resumes after its cursor.
- 409 `epoch_changed` is not temporary: the log may no longer contain events that are part of the state. The program
  rebuilds the state from the first event.

Try it with the data beside it (Python 3.9 or newer, no other package):

    annals import examples/package-events.ndjson
    python3 examples/projection.py --until-caught-up

docs/tutorial/first-projection.md is a lesson with it.
"""
from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import json
import os
import random
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterator
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

BATCH = 200  # Events between two stores while the projection catches up. Each store costs an fsync and a request.
SILENCE = 45.0  # Annals sends a comment every 15 seconds, so a connection that is silent for 45 seconds is broken.
BACK_OFF_MAX = 30.0


@dataclass
class State:
    """Everything that the projection stores. It includes the cursor, so that both are stored in one step."""

    cursor: str = ""  # The last event that is part of the state, as `epoch:position`. Empty before the first event.
    events: int = 0  # Detects events that were missed or counted twice.
    status: dict[str, str] = field(default_factory=dict)  # By aggregate_id.

    @property
    def position(self) -> int:
        return int(self.cursor.rpartition(":")[2] or 0)

    def apply(self, event: dict[str, Any]) -> None:
        self.events += 1
        if "status" in event["event_data"]:  # Requests (UpgradeRequested, ...) do not change the status.
            self.status[event["aggregate_id"]] = event["event_data"]["status"]

    def store(self, file: Path) -> None:
        """Replaces the file, so that a reader finds the old state or the new one, even after a crash."""
        try:
            new = file.with_name(f"{file.name}.{os.getpid()}.new")  # Two instances must not write to the same file.
            with open(new, "w", encoding="utf-8") as out:
                json.dump(asdict(self), out, indent=1)
                out.flush()
                os.fsync(out.fileno())  # The content must reach the disk before the new name does.
            os.replace(new, file)
            if hasattr(os, "O_DIRECTORY"):  # Makes the rename durable. Windows has no such call.
                directory = os.open(file.resolve().parent, os.O_DIRECTORY)
                os.fsync(directory)
                os.close(directory)
        except OSError as error:
            sys.exit(f"cannot store the state: {error}")  # A retry would not help, unlike with a connection.


class Stop(Exception):
    """SIGTERM or SIGINT was received."""


class Projection:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.path = "/projections/" + quote(options.name, safe="")
        self.stop_requested = self.may_stop = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        self.state = State(**json.loads(options.state.read_text("utf-8"))) if options.state.exists() else State()
        self.stored = self.state.cursor, self.state.events
        self.reported: int | None = None  # The position that Annals has; None if it has no such projection.
        self.retry = self.back_off = 2.0
        self.shown: list[tuple[str, int]] = []

    def run(self) -> None:
        """Follows the log until a signal stops it. Temporary errors are retried."""
        rebuild = self.options.rebuild
        try:
            while True:
                pause = 0
                try:
                    if rebuild:
                        self.rebuild()
                        rebuild = False
                    if self.follow():
                        return
                    say("the server has closed the event stream")  # The server does so before it shuts down.
                except HTTPError as answer:
                    problem = problem_of(answer)
                    say(f"{answer.code} {problem['code']}: {problem['detail']}")
                    if problem["code"] == "epoch_changed":
                        say(f"the state contains events up to {self.state.position}, but the log is only unchanged up"
                            f" to {problem['rewind_to']}. Previous values are not stored, so later events cannot be"
                            " undone: rebuilding the state from the first event")
                        rebuild = True
                        continue
                    if problem["code"] and answer.code < 500 and answer.code != 429:
                        sys.exit(1)  # A retry would fail again.
                    retry_after = answer.headers.get("Retry-After", "")
                    pause = int(retry_after) if retry_after.isdigit() else 0
                except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: JSON was cut off.
                    say(f"{type(error).__name__}: {error}")
                # Exponential backoff, with jitter because other clients have lost the same server.
                with self.waiting():
                    time.sleep(max(pause, self.back_off * random.uniform(0.75, 1.25)))
                self.back_off = min(self.back_off * 2, BACK_OFF_MAX)
        except Stop:
            self.state.store(self.options.state)
            say(f"stopped after {self.state.cursor or 'no event'}; the next run resumes there")

    def on_signal(self, *_: object) -> None:
        self.stop_requested = True
        if self.may_stop:
            raise Stop

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks the places where a signal may stop the program: never in the middle of an event."""
        self.may_stop = True
        try:
            if self.stop_requested:
                raise Stop
            yield
        finally:
            self.may_stop = False

    def follow(self) -> bool:
        """Follows over one connection until it ends. Returns true if it has caught up and --until-caught-up is set."""
        headers = {"Accept": "text/event-stream"}
        if self.state.cursor:
            headers["Last-Event-ID"] = self.state.cursor
        with self.waiting():
            stream = self.open("GET", "/events?aggregate_type=Package", headers, timeout=SILENCE)
        with stream:
            self.claim()
            live = False
            for frames in self.frames(stream):
                for name, id, data in frames:
                    if name == "message":
                        self.state.apply(json.loads(data))
                    self.state.cursor = id  # Also of `caught-up` and `heartbeat`: they skip events of other types.
                    if name == "caught-up":
                        live, self.back_off = True, self.retry
                    if name != "message" or self.state.events - self.stored[1] >= BATCH:
                        self.store()
                    with self.waiting():  # Even without --slow, so that a signal can stop the program here.
                        time.sleep(self.options.slow)
                if live:  # Events that arrived together are stored together, at once: the next may take long.
                    self.store()
                    self.show()
                    if self.options.until_caught_up:
                        return True
        return False

    def frames(self, stream: http.client.HTTPResponse) -> Iterator[list[tuple[str, str, str]]]:
        """Yields the frames that arrive together, as (name, id, data). A frame is complete with its empty line.

        This parser handles the frames that Annals sends. Use a library to read arbitrary event streams."""
        rest, name, id, data = b"", "message", "", ""
        while True:
            with self.waiting():
                piece = stream.read1(65536)
            if not piece:
                return
            *lines, rest = (rest + piece).split(b"\n")
            frames = []
            for line in lines:
                key, _, value = line.decode().partition(": ")
                if key == "id":
                    id = value
                elif key == "event":
                    name = value
                elif key == "data":
                    data = value
                elif key == "retry":
                    self.retry = int(value) / 1000
                elif not line:  # All other lines are comments, which keep the connection alive.
                    if data:
                        frames.append((name, id, data))
                    name, data = "message", ""
            yield frames

    def claim(self) -> None:
        """Reads the position that Annals has. After a crash it may be behind the state, but is never ahead of it."""
        self.reported = self.read_reported_position()
        if self.reported is not None and self.reported > self.state.position:
            sys.exit(f"{self.options.name} is at {self.reported} already, and {self.options.state} at"
                     f" {self.state.position}: another instance has moved it, or this is not the latest file."
                     " --rebuild starts over and takes over the position")
        self.store()

    def rebuild(self) -> None:
        self.reported = self.read_reported_position()
        self.report(0, "?reset=true")
        self.state, self.stored = State(), ("", 0)
        self.state.store(self.options.state)

    def store(self) -> None:
        """Stores effect and cursor in one step, then reports the position: a waiting client finds the effect."""
        now = self.state.cursor, self.state.events
        if now != self.stored:
            self.state.store(self.options.state)
            self.stored = now
        if self.state.position != self.reported:
            self.report(self.state.position)

    def read_reported_position(self) -> int | None:
        try:
            with self.open("GET", self.path, {}) as answer:
                return json.load(answer)["last_processed_position"]
        except HTTPError as answer:
            if answer.code != 404:
                raise
            return None

    def report(self, position: int, query: str = "") -> None:
        expected = {"If-None-Match": "*"} if self.reported is None else {"If-Match": f'"{self.reported}"'}
        body = json.dumps({"last_processed_position": position}).encode()
        try:
            self.open("PUT", self.path + query, {"Content-Type": "application/json", **expected}, body).close()
        except HTTPError as answer:
            if answer.code != 412:
                raise
            sys.exit(f"412 {problem_of(answer)['detail']}. Another instance moves the position of"
                     f" {self.options.name}: stopping")
        self.reported = position

    def open(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None,
             timeout: float = 10.0) -> http.client.HTTPResponse:
        return urlopen(Request(self.options.url.rstrip("/") + path, body, headers, method=method), timeout=timeout)

    def show(self) -> None:
        counts = collections.Counter(self.state.status.values()).most_common()
        if counts != self.shown:
            print(f"{self.state.events} events up to {self.state.cursor}")
            print("\n".join(f"  {status:<16}{count:>6}" for status, count in counts), flush=True)
            self.shown = counts


def problem_of(answer: HTTPError) -> dict[str, Any]:
    try:
        return json.load(answer)
    except (ValueError, OSError, http.client.HTTPException):  # The answer is that of a proxy, or incomplete.
        return {"code": "", "detail": answer.reason}


def say(what: str) -> None:
    print(time.strftime("%H:%M:%S"), what, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts packages by status, from the log of Annals.")
    parser.add_argument("--url", default="http://localhost:8080", help="where Annals listens (%(default)s)")
    parser.add_argument("--name", default="package-states", help="of the projection, in Annals (%(default)s)")
    parser.add_argument("--state", type=Path, default=Path("package-states.json"), metavar="FILE",
                        help="file in which the state is stored (%(default)s)")
    parser.add_argument("--until-caught-up", action="store_true", help="stop at the end of the log")
    parser.add_argument("--rebuild", action="store_true", help="rebuild the state from the first event")
    parser.add_argument("--slow", type=float, default=0, metavar="SECONDS", help="sleep after each event")
    Projection(parser.parse_args()).run()


if __name__ == "__main__":
    main()
