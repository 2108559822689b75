"""The verbs of the client, without I/O: see `_effects.py`."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode

import httpx

from ._effects import (
    LOST,
    Call,
    Close,
    Emit,
    Frame,
    OnRequest,
    Progress,
    Read,
    Send,
    Sleep,
    Steps,
    Try,
    encode,
    parse_frames,
)
from .errors import (
    AnnalsError,
    ConnectionLost,
    EpochChanged,
    IncompleteResponse,
    PositionConflict,
    Problem,
    ProjectionNotFound,
    StreamNotFound,
    VersionConflict,
)
from .types import (
    AggregateState,
    Appended,
    Decided,
    Event,
    Expected,
    Filter,
    Loaded,
    NewEvent,
    NewEvents,
    Projection,
    StreamAppend,
    uuid7,
)

S = TypeVar("S")

NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
#: The seconds that the service takes at most for a request, and some more.
ANSWER = 25.0
#: Conflicts that `decide` answers at once, from the missed events, before it waits and loads again.
AT_ONCE = 3


def backoff(tries: int, base: float = 0.1, most: float = 5.0) -> float:
    """Returns a pause that doubles with each try. The jitter separates clients that have failed together."""
    return random.uniform(0.5, 1.0) * min(most, base * 2.0 ** min(tries - 1, 16))


def path_of(*names: str) -> str:
    """Returns a path in which each name is one segment."""
    for name in names:
        if name in ("", ".", ".."):
            raise ValueError(f"{name!r} cannot be part of a path: use a name that is not empty, `.` or `..`")
    return "".join("/" + quote(name, safe="") for name in names)


def base_of(url: str) -> str:
    """Returns the URL before every path. Fails at once if no request could be sent to it."""
    try:
        parsed = httpx.URL(url)
        is_valid = parsed.scheme in ("http", "https") and parsed.host != ""
    except httpx.InvalidURL:
        is_valid = False
    if not is_valid:
        raise ValueError(f'{url!r} is not a URL with http:// or https://, such as "http://127.0.0.1:8080"')
    return url.rstrip("/")


def problem_of(response: httpx.Response, decode: Callable[[bytes], Any]) -> Problem:
    try:
        document = decode(response.content)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "code" not in document:
        document = {"title": response.reason_phrase, "detail": f"not a response of Annals: {response.text[:200]!r}"}
    seconds = response.headers.get("Retry-After", "")
    return Problem.new(response.status_code, document, float(seconds) if seconds.isdigit() else None)


@dataclass
class Checkpoint:
    """The position of a projection in the service, as this instance knows it. None: the projection does not exist."""

    path: str
    position: int | None
    #: The positions that were sent, and for which no response has arrived.
    sent: set[int] = field(default_factory=set)
    #: The next position may be before the current one.
    is_rewound: bool = False


@dataclass
class Verbs:
    """The verbs, and the settings of a client. Nothing here changes after the client was made."""

    url: str
    key: str | None = field(repr=False)
    patience: float
    silence: float
    on_request: OnRequest | None
    parse_float: Callable[[str], Any]

    def decode(self, text: bytes) -> Any:
        return json.loads(text, parse_float=self.parse_float)

    # --- Requests ---

    def exchange(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = {},
        content: bytes | None = None,
        timeout: float = ANSWER,
        patience: float | None = None,
        stream: bool = False,
    ) -> Steps[httpx.Response]:
        """Sends a request until it gets a response that is not temporary. Fails after `patience` seconds."""
        give_up = time.monotonic() + (self.patience if patience is None else patience)
        for number in itertools.count(1):
            failure: Problem | ConnectionLost
            try:
                response = yield from self.send(
                    number, Send(method, self.url + target, dict(headers), content, timeout, stream)
                )
            except LOST as error:
                failure = ConnectionLost(f"{method} {self.url + target}: {str(error) or type(error).__name__}")
                failure.__cause__ = error
                pause = backoff(number)
            else:
                if response.status_code < 300:
                    content_type = response.headers.get("Content-Type", "")
                    if stream and not content_type.startswith(headers["Accept"]):
                        detail = f"not a response of Annals: the content type is {content_type!r}"
                        raise Problem(response.status_code, {"title": "Unknown response", "detail": detail})
                    return response
                failure = problem_of(response, self.decode)
                failure.tries = number
                if not failure.is_temporary:
                    raise failure
                pause = max(backoff(number), failure.retry_after or 0.0)
            if time.monotonic() + pause > give_up:
                raise failure
            yield Sleep(pause)
        raise AssertionError("the loop has no end")

    def send(self, number: int, request: Send) -> Steps[httpx.Response]:
        """Sends a request once, and calls the hook."""
        if request.content is not None:
            request.headers["Content-Type"] = "application/json"
        sent = Try(request.method, request.url, number, request.headers)
        finish = self.on_request(sent) if self.on_request else None
        request.headers = dict(sent.headers)
        if self.key is not None:
            request.headers["Authorization"] = f"Bearer {self.key}"
        start = time.monotonic()
        try:
            response: httpx.Response = yield request
            sent.status = response.status_code
            return response
        except Exception as error:
            sent.error = error
            raise
        finally:
            sent.seconds = time.monotonic() - start
            if finish is not None:
                finish(sent)

    def request(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: Mapping[str, str] = {},
        timeout: float = ANSWER,
        patience: float | None = None,
    ) -> Steps[Any]:
        """Returns the JSON of a response; None if it has no body."""
        content = None if body is None else encode(body)
        response = yield from self.exchange(
            method, target, headers=headers, content=content, timeout=timeout, patience=patience
        )
        return self.json_of(response)

    def json_of(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        if "json" not in response.headers.get("Content-Type", ""):
            raise problem_of(response, self.decode)
        return self.decode(response.content)

    # --- Append and decide ---

    def append(
        self,
        aggregate_type: str,
        aggregate_id: str,
        events: NewEvents,
        expected: Expected = None,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Steps[Appended]:
        # Makes `VersionConflict.missed_events` available.
        headers = {"Prefer": "return=representation"}
        if expected == "none":
            headers["If-None-Match"] = "*"
        elif expected == "exists":
            headers["If-Match"] = "*"
        elif isinstance(expected, int) and not isinstance(expected, bool):
            headers["If-Match"] = f'"{expected}"'
        elif expected is not None:
            raise ValueError(f'expected must be a version, "none", "exists" or None, and is {expected!r}')
        defaults = {"X-Correlation-Id": correlation_id, "X-Causation-Id": causation_id}
        headers |= {name: value for name, value in defaults.items() if value is not None}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        sent = with_ids(events) if idempotency_key is None else listed(events)
        response = yield from self.exchange(
            "POST",
            "/streams" + path_of(aggregate_type, aggregate_id),
            headers=headers,
            content=encode({"events": sent}),
        )
        replayed = response.headers.get("Idempotent-Replayed") == "true"
        return cast(Appended, {**self.json_of(response), "replayed": replayed})

    def append_all(self, appends: Iterable[StreamAppend]) -> Steps[list[Appended]]:
        content = encode({"appends": [{**append, "events": with_ids(append["events"])} for append in appends]})
        response = yield from self.exchange("POST", "/appends", content=content)
        replayed = response.headers.get("Idempotent-Replayed") == "true"
        return [cast(Appended, {**result, "replayed": replayed}) for result in self.json_of(response)["appends"]]

    def load(
        self, aggregate_type: str, aggregate_id: str, initial: Callable[[], S], evolve: Callable[[S, Event], S]
    ) -> Steps[Loaded[S]]:
        state, version = initial(), 0
        target: str | None = "/aggregates" + path_of(aggregate_type, aggregate_id) + "?snapshot=ignore"
        try:
            while target is not None:
                page = yield from self.request("GET", target)
                state, version = fold(evolve, state, version, page["events"])
                target = page["next"]
        except StreamNotFound:
            pass
        return Loaded(state, version)

    def decide(
        self,
        aggregate_type: str,
        aggregate_id: str,
        initial: Callable[[], S],
        evolve: Callable[[S, Event], S],
        decision: Callable[[S], Any],
    ) -> Steps[Decided[S]]:
        give_up = time.monotonic() + self.patience
        for loads in itertools.count(1):
            loaded = yield from self.load(aggregate_type, aggregate_id, initial, evolve)
            state, version = loaded.state, loaded.version
            for tries in range(1 + AT_ONCE):
                events = listed((yield Call(decision, (state,))))
                if not events:
                    return Decided(state, version, None)
                try:
                    appended = yield from self.append(aggregate_type, aggregate_id, events, version)
                except VersionConflict as error:
                    conflict = error
                    if error.missed_events is None or error.missed_events_truncated:
                        break
                    if tries < AT_ONCE:
                        state, version = fold(evolve, state, version, error.missed_events)
                else:
                    new = recorded(aggregate_type, aggregate_id, events, appended)
                    return Decided(*fold(evolve, state, version, new), appended)
            # The pause is short: a writer that waits longer than the others are fast would never succeed.
            pause = backoff(loads, base=0.01, most=0.2)
            if time.monotonic() + pause > give_up:
                raise conflict
            yield Sleep(pause)
        raise AssertionError("the loop has no end")

    # --- Read and follow ---

    def read_lines(self, target: str, progress: Progress) -> Steps[None]:
        """Emits the events of an NDJSON response. Fails if its last line is not an end line."""
        yield from self.exchange("GET", target, headers={"Accept": NDJSON}, stream=True)
        rest = b""
        while chunk := (yield from self.read_chunk()):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                try:
                    document = self.decode(line)
                except ValueError as error:
                    raise IncompleteResponse(f"GET {self.url + target}: a line is not JSON: {line[:200]!r}") from error
                if "event_id" in document:
                    yield Emit(document)
                elif "error" in document:
                    raise Problem.new(document["error"]["status"], document["error"], None)
                else:
                    progress.end = document["end"]
                    return
        raise IncompleteResponse(
            f"GET {self.url + target}: the response ended without an end line, so events are missing"
        )

    def read_chunk(self) -> Steps[bytes]:
        """Returns the next piece of the body. A lost connection ends the body."""
        try:
            chunk: bytes = yield Read()
        except LOST:
            return b""
        return chunk

    def read(self, filter: Filter, after: str | int, limit: int | None, progress: Progress) -> Steps[None]:
        yield from self.read_lines(self.log(filter, after=after, limit=limit), progress)

    def read_stream(
        self, aggregate_type: str, aggregate_id: str, parameters: dict[str, Any], progress: Progress
    ) -> Steps[None]:
        target = "/streams" + path_of(aggregate_type, aggregate_id) + query(parameters)
        yield from self.read_lines(target, progress)

    def log(self, filter: Filter, **parameters: Any) -> str:
        return "/events" + query({**filter, **parameters})

    def follow(self, filter: Filter, after: str | int, progress: Progress) -> Steps[None]:
        def deliver(frames: list[Frame]) -> Steps[bool]:
            for frame in frames:
                progress.cursor = frame.cursor
                if frame.name == "caught-up":
                    progress.caught_up = True
                if not frame.name:
                    yield Emit(self.decode(frame.data))
            return False

        progress.cursor = yield from self.cursor_of(after)
        yield from self.subscribe(filter, progress.cursor, deliver)

    def cursor_of(self, after: str | int) -> Steps[str]:
        """Resolves `head`, so that a connection that is lost at once loses no event."""
        if after != "head":
            return str(after)
        page = yield from self.request("GET", "/events?after=head&limit=1")
        return f"{page['epoch']}:{page['next_after']}"

    def subscribe(
        self,
        filter: Filter,
        cursor: str,
        deliver: Callable[[list[Frame]], Steps[bool]],
        rewind: Callable[[EpochChanged], Steps[str]] | None = None,
    ) -> Steps[None]:
        """Delivers the frames that arrive together, until `deliver` returns true. Resumes after a lost connection.

        The first connection must succeed within `patience`. After that, an outage may have any length.
        """
        patience: float | None = None
        failures = 0
        while True:
            try:
                yield from self.exchange(
                    "GET",
                    self.log(filter, after=cursor),
                    headers={"Accept": EVENT_STREAM},
                    timeout=self.silence,
                    patience=patience,
                    stream=True,
                )
            except EpochChanged as change:
                if rewind is None:
                    raise
                cursor = yield from rewind(change)
                continue
            patience = float("inf")
            rest = b""
            while chunk := (yield from self.read_chunk()):
                frames, rest = parse_frames(rest + chunk)
                if frames:
                    failures = 0
                    if (yield from deliver(frames)):
                        return
                    cursor = frames[-1].cursor
            yield Close()
            failures += 1
            yield Sleep(backoff(failures))

    # --- State, and other requests ---

    def state(
        self, aggregate_type: str, aggregate_id: str, version: int | None, at: str | None
    ) -> Steps[AggregateState]:
        target = "/aggregates" + path_of(aggregate_type, aggregate_id) + "/state"
        state = yield from self.request("GET", target + query({"version": version, "at": at}))
        return cast(AggregateState, state)

    def wait_for(self, projection: str, position: int, timeout: int) -> Steps[Projection]:
        target = "/projections" + path_of(projection) + query({"wait_for": position, "timeout": timeout})
        return cast(Projection, (yield from self.request("GET", target, timeout=ANSWER + timeout)))

    def other(
        self, method: str, target: str, body: Any, headers: Mapping[str, str], patience: float | None
    ) -> Steps[Any]:
        if patience is None and method == "POST":
            patience = 0.0  # Without ids of its own, a POST that is repeated may act twice.
        return (yield from self.request(method, target, body, headers, patience=patience))

    # --- Project ---

    def project(
        self,
        name: str,
        filter: Filter,
        handle: Callable[[list[Event], str], Any],
        after: str | int | None,
        on_rewind: Callable[[EpochChanged], Any] | None,
        reset: bool,
        until_caught_up: bool,
        stop: Callable[[], bool] | None,
    ) -> Steps[None]:
        checkpoint = yield from self.checkpoint("/projections" + path_of(name))
        checkpoint.is_rewound = reset
        start = 0 if reset else checkpoint.position or 0
        cursor = yield from self.cursor_of(start if after is None else after)
        is_claimed = False

        def deliver(frames: list[Frame]) -> Steps[bool]:
            nonlocal cursor, is_claimed
            if not is_claimed:
                # Before the first event is handled: detects that another instance is further, or moves the position.
                yield from self.store(checkpoint, position_of(cursor))
                is_claimed = True
            events = [self.decode(frame.data) for frame in frames if not frame.name]
            if events or frames[-1].cursor != cursor:
                yield Call(handle, (events, frames[-1].cursor))
            cursor = frames[-1].cursor
            yield from self.store(checkpoint, position_of(cursor))
            is_caught_up = any(frame.name == "caught-up" for frame in frames)
            return (until_caught_up and is_caught_up) or (stop is not None and stop())

        def rewind(change: EpochChanged) -> Steps[str]:
            nonlocal cursor, checkpoint, is_claimed
            back = yield Call(cast("Callable[[EpochChanged], Any]", on_rewind), (change,))
            cursor = f"{change.epoch}:{change.rewind_to}" if back is None else str(back)
            # The position may have been lost with the events, so it is read again.
            checkpoint = yield from self.checkpoint(checkpoint.path)
            checkpoint.is_rewound = True
            yield from self.store(checkpoint, position_of(cursor))
            is_claimed = True
            return cursor

        yield from self.subscribe(filter, cursor, deliver, rewind if on_rewind else None)

    def checkpoint(self, path: str) -> Steps[Checkpoint]:
        try:
            projection = yield from self.request("GET", path)
        except ProjectionNotFound:
            return Checkpoint(path, None)
        return Checkpoint(path, projection["last_processed_position"])

    def store(self, checkpoint: Checkpoint, position: int) -> Steps[None]:
        """Moves the position by compare-and-set. During an outage it does nothing: the next position includes this."""
        while position != checkpoint.position:
            expected = checkpoint.position
            headers = {"If-None-Match": "*"} if expected is None else {"If-Match": f'"{expected}"'}
            checkpoint.sent.add(position)
            target = checkpoint.path + ("?reset=true" if checkpoint.is_rewound else "")
            try:
                yield from self.request("PUT", target, {"last_processed_position": position}, headers)
            except PositionConflict as conflict:
                # A request without a response may have moved the position. Then the conflict is with this instance.
                is_unsure = conflict.tries > 1 or len(checkpoint.sent) > 1
                if not is_unsure or conflict.current_position not in checkpoint.sent:
                    raise
                position_now = conflict.current_position
            except AnnalsError as error:
                if isinstance(error, Problem) and not error.is_temporary:
                    raise
                return
            else:
                position_now = position
            checkpoint.position = position_now
            checkpoint.sent.clear()
            checkpoint.is_rewound = False


def listed(events: NewEvents | None) -> list[NewEvent]:
    """Returns a list of the events of an append or of a decision."""
    if events is None:
        return []
    return [cast(NewEvent, events)] if isinstance(events, Mapping) else list(events)


def with_ids(events: NewEvents) -> list[NewEvent]:
    """Gives an id to each event that has none. It is made before the first try, so that every retry is safe."""
    return [cast(NewEvent, {**event, "event_id": event.get("event_id") or uuid7()}) for event in listed(events)]


def fold(evolve: Callable[[S, Event], S], state: S, version: int, events: Iterable[Event]) -> tuple[S, int]:
    for event in events:
        state, version = evolve(state, event), event["version"]
        if state is None:
            raise TypeError(f"evolve returned no state for {event['event_type']}: return it")
    return state, version


def position_of(cursor: str) -> int:
    return int(cursor.rpartition(":")[2])


def query(parameters: Mapping[str, Any]) -> str:
    """Returns a query, without the parameters that are None. A parameter with a list is repeated."""
    present = {name: value for name, value in parameters.items() if value is not None}
    return "?" + urlencode(present, doseq=True, quote_via=quote) if present else ""


def recorded(aggregate_type: str, aggregate_id: str, events: Sequence[NewEvent], appended: Appended) -> Iterable[Event]:
    """Returns the events of an append as a read would return them."""
    absent = {"metadata": None, "correlation_id": None, "causation_id": None}
    stream = {"aggregate_type": aggregate_type, "aggregate_id": aggregate_id}
    for event, record in zip(events, appended["events"], strict=True):
        yield cast(Event, {**absent, **event, **stream, **record})
