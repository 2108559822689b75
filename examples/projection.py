#!/usr/bin/env python3
"""A projection: how many packages are in which status, kept up to date from the log of Annals.

It follows the log (GET /events as server-sent events), and shows what every projection has to get right:

- Events are delivered at least once. They count exactly once, because the effect (the status of each package) and
  the cursor (the last event that is in it) are stored in one step: here in one file that is replaced as a whole,
  elsewhere in one transaction. Neither is ever newer than the other, so `kill -9` does no harm.
- Annals is told the position after the effect is stored, never before, and by compare-and-set. Operators see how
  far the projection is behind, others can wait for a position, and a second instance is noticed.
- A lost connection, a restart of the server and 503 pass. It comes back, and goes on after its cursor.
- 409 `epoch_changed` does not: events that are in the state may no longer be in the log. It begins anew.

Try it with the data beside it (Python 3.9 or newer, nothing else):

    annals import examples/package-events.ndjson
    python3 examples/projection.py --until-caught-up
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

BATCH = 200  # Events between two stores while it catches up: each costs an fsync and a request.
SILENCE = 45.0  # Annals sends a comment every 15 seconds: a connection that is silent for so long is dead.
BACK_OFF_MAX = 30.0


@dataclass
class State:
    """All that the projection keeps. The cursor is in it, and that is the point."""

    cursor: str = ""  # The last event that is in it, as `epoch:position`; empty before the first one.
    events: int = 0  # It would show an event that was missed, or counted twice.
    status: dict[str, str] = field(default_factory=dict)  # By aggregate_id.

    @property
    def position(self) -> int:
        return int(self.cursor.rpartition(":")[2] or 0)

    def apply(self, event: dict[str, Any]) -> None:
        self.events += 1
        if "status" in event["event_data"]:  # What was requested has not happened yet, and has none.
            self.status[event["aggregate_id"]] = event["event_data"]["status"]

    def store(self, file: Path) -> None:
        """Replaces the file: whoever reads it, even after a crash, finds the old state or this one."""
        try:
            new = file.with_name(f"{file.name}.{os.getpid()}.new")  # Two instances must not write into one file.
            with open(new, "w", encoding="utf-8") as out:
                json.dump(asdict(self), out, indent=1)
                out.flush()
                os.fsync(out.fileno())  # The name must not reach the disk before what it names.
            os.replace(new, file)
            if hasattr(os, "O_DIRECTORY"):  # And now the name; Windows has no such call.
                directory = os.open(file.resolve().parent, os.O_DIRECTORY)
                os.fsync(directory)
                os.close(directory)
        except OSError as error:
            sys.exit(f"cannot store the state: {error}")  # Unlike a lost connection, this does not pass.


class Stop(Exception):
    """SIGTERM or SIGINT came."""


class Projection:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.path = "/projections/" + quote(options.name, safe="")
        self.stop_asked = self.may_stop = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        self.state = State(**json.loads(options.state.read_text("utf-8"))) if options.state.exists() else State()
        self.stored = self.state.cursor, self.state.events
        self.told: int | None = None  # The position that Annals has of it; None if it knows no such projection.
        self.retry = self.back_off = 2.0
        self.shown: list[tuple[str, int]] = []

    def run(self) -> None:
        """Follows until it is told to stop. What passes is waited for."""
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
                    say("the server has ended the stream")  # It does so before it shuts down.
                except HTTPError as answer:
                    problem = problem_of(answer)
                    say(f"{answer.code} {problem['code']}: {problem['detail']}")
                    if problem["code"] == "epoch_changed":
                        say(f"the state has events up to {self.state.position}, and the log is sure to have them only"
                            f" up to {problem['rewind_to']}. What the others have overwritten is not kept, so they"
                            " cannot be undone: the state is built anew from the first event on")
                        rebuild = True
                        continue
                    if problem["code"] and answer.code < 500 and answer.code != 429:
                        sys.exit(1)  # Repeating it would fail again.
                    retry_after = answer.headers.get("Retry-After", "")
                    pause = int(retry_after) if retry_after.isdigit() else 0
                except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: half a JSON.
                    say(f"{type(error).__name__}: {error}")
                # Longer each time, and out of step with the others that have lost the same server.
                with self.waiting():
                    time.sleep(max(pause, self.back_off * random.uniform(0.75, 1.25)))
                self.back_off = min(self.back_off * 2, BACK_OFF_MAX)
        except Stop:
            self.state.store(self.options.state)
            say(f"stopped after {self.state.cursor or 'nothing'}; the next run goes on there")

    def on_signal(self, *_: object) -> None:
        self.stop_asked = True
        if self.may_stop:
            raise Stop

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Where a signal may end it: never halfway through an event."""
        self.may_stop = True
        try:
            if self.stop_asked:
                raise Stop
            yield
        finally:
            self.may_stop = False

    def follow(self) -> bool:
        """Follows over one connection until it ends; true if it has caught up and nothing else is wanted."""
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
                    self.state.cursor = id  # `caught-up` and `heartbeat` move it too, past the events of other types.
                    if name == "caught-up":
                        live, self.back_off = True, self.retry
                    if name != "message" or self.state.events - self.stored[1] >= BATCH:
                        self.store()
                    with self.waiting():  # Also when it does not wait at all: a signal gets its chance.
                        time.sleep(self.options.slow)
                if live:  # What has come together is stored together, and now: the next may be long in coming.
                    self.store()
                    self.show()
                    if self.options.until_caught_up:
                        return True
        return False

    def frames(self, stream: http.client.HTTPResponse) -> Iterator[list[tuple[str, str, str]]]:
        """What arrives together, as (name, id, data). A frame counts only once the empty line after it is there.

        It reads what Annals writes; to read any event stream, take a library."""
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
                elif not line:  # Other lines begin with a colon: comments, which only show that somebody is there.
                    if data:
                        frames.append((name, id, data))
                    name, data = "message", ""
            yield frames

    def claim(self) -> None:
        """Learns which position Annals has: after a crash that may be behind the state, and is never ahead of it."""
        self.told = self.asked_position()
        if self.told is not None and self.told > self.state.position:
            sys.exit(f"{self.options.name} is at {self.told} already, and {self.options.state} at"
                     f" {self.state.position}: another instance has moved it, or this is not the latest file."
                     " --rebuild begins anew, and takes over")
        self.store()

    def rebuild(self) -> None:
        self.told = self.asked_position()
        self.tell(0, "?reset=true")
        self.state, self.stored = State(), ("", 0)
        self.state.store(self.options.state)

    def store(self) -> None:
        """The effect and its cursor in one step, and then the position: who waits for that will find the effect."""
        now = self.state.cursor, self.state.events
        if now != self.stored:
            self.state.store(self.options.state)
            self.stored = now
        if self.state.position != self.told:
            self.tell(self.state.position)

    def asked_position(self) -> int | None:
        try:
            with self.open("GET", self.path, {}) as answer:
                return json.load(answer)["last_processed_position"]
        except HTTPError as answer:
            if answer.code != 404:
                raise
            return None

    def tell(self, position: int, query: str = "") -> None:
        expected = {"If-None-Match": "*"} if self.told is None else {"If-Match": f'"{self.told}"'}
        body = json.dumps({"last_processed_position": position}).encode()
        try:
            self.open("PUT", self.path + query, {"Content-Type": "application/json", **expected}, body).close()
        except HTTPError as answer:
            if answer.code != 412:
                raise
            sys.exit(f"412 {problem_of(answer)['detail']}. Somebody else, another instance say, moves"
                     f" {self.options.name}: this one stops")
        self.told = position

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
    except (ValueError, OSError, http.client.HTTPException):  # A proxy has answered, or it breaks off.
        return {"code": "", "detail": answer.reason}


def say(what: str) -> None:
    print(time.strftime("%H:%M:%S"), what, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts packages by status, from the log of Annals.")
    parser.add_argument("--url", default="http://localhost:8080", help="where Annals listens (%(default)s)")
    parser.add_argument("--name", default="package-states", help="of the projection, in Annals (%(default)s)")
    parser.add_argument("--state", type=Path, default=Path("package-states.json"), metavar="FILE",
                        help="where it keeps its state (%(default)s)")
    parser.add_argument("--until-caught-up", action="store_true", help="stop at the end of the log")
    parser.add_argument("--rebuild", action="store_true", help="begin with the first event again")
    parser.add_argument("--slow", type=float, default=0, metavar="SECONDS", help="sleep after each event")
    Projection(parser.parse_args()).run()


if __name__ == "__main__":
    main()
