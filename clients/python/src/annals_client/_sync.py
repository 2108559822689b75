"""The synchronous client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar, cast

import httpx

from ._effects import (
    ENDING,
    Call,
    Close,
    Effect,
    Emit,
    Keeper,
    OnRequest,
    Progress,
    Reached,
    Read,
    Send,
    Sleep,
    Steps,
    timeouts,
)
from ._verbs import Verbs, base_of
from ._work import Worker
from .errors import ClaimLost, EpochChanged
from .types import (
    AggregateState,
    Appended,
    Claim,
    Decided,
    Event,
    Expected,
    Filter,
    Loaded,
    NewEvents,
    Projection,
    StreamAppend,
)

T = TypeVar("T")
S = TypeVar("S")


class Annals:
    """A client of one service. It may be used by several threads.

    - `key`: the API key, if the service requires one.
    - `patience`: the seconds for which a request is retried after 503, 429 and lost connections.
    - `silence`: the seconds after which a silent event stream counts as lost. The service sends something every 15.
    - `on_request`: is called before each request, and what it returns after it.
    - `parse_float`: reads the numbers that are not integers, for example `decimal.Decimal`.
    - `http`: an `httpx.Client` with your settings for TLS, proxies and connections.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        patience: float = 30.0,
        silence: float = 45.0,
        on_request: OnRequest | None = None,
        parse_float: Callable[[str], Any] = float,
        http: httpx.Client | None = None,
    ) -> None:
        self._verbs = Verbs(base_of(url), key, patience, silence, on_request, parse_float)
        self._http = http or httpx.Client()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Annals:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(
        self,
        aggregate_type: str,
        aggregate_id: str,
        events: NewEvents,
        expected: Expected = None,
        *,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Appended:
        """Appends an event or several to a stream, all or none.

        Raises `VersionConflict` if the stream is not at the expected version.

        Events without an id get one, so that a retry does not write them again. With `idempotency_key` the service
        derives the ids from the key: then a repeated call does not write them again either. `correlation_id` and
        `causation_id` are those of the events that have none: UUIDs, or any text.
        """
        ids = idempotency_key, correlation_id, causation_id
        return self._run(self._verbs.append(aggregate_type, aggregate_id, events, expected, *ids))

    def append_all(self, appends: Iterable[StreamAppend]) -> list[Appended]:
        """Appends to several streams in one atomic step: all events are written, or none.

        `VersionConflict.conflicts` lists the streams that are not at their `expected_version`.
        """
        return self._run(self._verbs.append_all(appends))

    def aggregate(self, aggregate_type: str, initial: Callable[[], S], evolve: Callable[[S, Event], S]) -> Aggregate[S]:
        """Returns the aggregates of a type.

        `initial` makes the state before the first event. `evolve` returns the state after an event, which is not None.
        """
        return Aggregate(self, aggregate_type, initial, evolve)

    def read(self, filter: Filter | None = None, *, after: str | int = 0, limit: int | None = None) -> Events:
        """Reads the events of the log in order, up to its head."""
        return Events(self, lambda progress: self._verbs.read(filter or {}, after, limit, progress))

    def read_stream(
        self,
        aggregate_type: str,
        aggregate_id: str,
        *,
        from_version: int | None = None,
        to_version: int | None = None,
        limit: int | None = None,
        direction: Literal["forward", "backward"] | None = None,
        min_position: int | None = None,
    ) -> Events:
        """Reads the events of a stream in order. Raises `StreamNotFound` if it has none."""
        parameters = {
            "from_version": from_version,
            "to_version": to_version,
            "limit": limit,
            "direction": direction,
            "min_position": min_position,
        }
        return Events(
            self, lambda progress: self._verbs.read_stream(aggregate_type, aggregate_id, parameters, progress)
        )

    def follow(self, filter: Filter | None = None, *, after: str | int = 0) -> Events:
        """Reads the events of the log after a cursor, and then new events as they are appended. It does not end.

        `cursor` of the result is the cursor after the last event or heartbeat. `after="head"` begins with new events.
        Raises `EpochChanged` if the log may not have the events that were read.
        """
        return Events(self, lambda progress: self._verbs.follow(filter or {}, after, progress))

    def project(
        self,
        name: str,
        filter: Filter | None,
        handle: Callable[[list[Event], str], object],
        *,
        after: str | int | None = None,
        on_rewind: Callable[[EpochChanged], str | int | None] | None = None,
        reset: bool = False,
        until_caught_up: bool = False,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Runs a projection: calls `handle(events, cursor)` for each batch, and then stores the position.

        - `after`: the cursor that `handle` has stored beside its effect. Absent: the position that the service has.
        - `on_rewind`: removes the effects of the events after `rewind_to`. The projection continues there, or at the
          cursor that it returns. Without it, `EpochChanged` is raised.
        - `reset`: begins again with the first event, or after `after`, and moves the position in the service back.
        - `until_caught_up`: ends at the end of the log.
        - `stop`: is asked after each batch and each heartbeat, at least every 15 seconds.

        The list of events is empty if the log has advanced without a match. Raises `PositionConflict` if another
        instance has moved the position, and `PositionRegressed` if the position is beyond `after`.
        """
        self._run(self._verbs.project(name, filter or {}, handle, after, on_rewind, reset, until_caught_up, stop))

    def work(
        self,
        group: str,
        handle: Callable[[Event, Claim], object],
        *,
        worker: str | None = None,
        limit: int = 100,
        wait: int = 20,
        on_failed: Callable[[Event, Exception], object] | None = None,
        on_claim_lost: Callable[[ClaimLost], object] | None = None,
        on_rewind: Callable[[EpochChanged], object] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Runs a worker of a consumer group: calls `handle(event, claim)` for the events that the group hands out.

        If `handle` raises an error, the group parks the stream of the event, and the others continue. `EventFailed`
        says when the event is tried again. The lease is extended while `handle` runs, by a second thread.

        - `on_failed`: is called with an event and the error that `handle` has raised. Without it, the error is logged.
        - `on_claim_lost`: is called if another worker may have the events of the claim. The rest is not handled.
        - `on_rewind`: is called if the events after `rewind_to` may be lost. Without it, `EpochChanged` is raised.
        - `stop`: is asked before and after each event, and at least every `wait` seconds. If it returns true, what is
          handled is acknowledged, and the claim is released.
        """
        callbacks = on_failed, on_claim_lost, on_rewind, stop
        self._run(Worker(self._verbs, group, handle, worker, limit, wait, *callbacks).run())

    def state(
        self, aggregate_type: str, aggregate_id: str, *, version: int | None = None, at: str | None = None
    ) -> AggregateState:
        """Returns the state that the reducer of the type computes: now, after a version, or at a time."""
        return self._run(self._verbs.state(aggregate_type, aggregate_id, version, at))

    def wait_for(self, projection: str, position: int, *, timeout: int = 5) -> Projection:
        """Waits until a projection has processed a position. Raises `ProjectionBehind` after `timeout` seconds."""
        return self._run(self._verbs.wait_for(projection, position, timeout))

    def request(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> Any:
        """Sends any other request, and returns the JSON of the response. Retries a POST only if `patience` is given."""
        return self._run(self._verbs.other(method, target, body, headers or {}, patience))

    # --- Effects ---

    def _run(self, steps: Steps[T]) -> T:
        driver = self._drive(steps)
        try:
            next(driver)
        except StopIteration as end:
            return cast(T, end.value)
        raise AssertionError("only iterators emit")

    def _drive(self, steps: Steps[T]) -> Generator[Any, None, T]:
        """Performs the effects of a verb, and yields what it emits. Closes its response in any case."""
        connection = _Connection(self)
        try:
            effect = next(steps)
            while True:
                try:
                    result = (yield effect.value) if isinstance(effect, Emit) else connection.perform(effect)
                except (Exception, *ENDING) as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as end:
            return cast(T, end.value)
        finally:
            steps.close()
            connection.close()


class _Connection:
    """Performs the effects of one call. Has at most one open response."""

    def __init__(self, client: Annals) -> None:
        self._client = client
        self._response: httpx.Response | None = None
        self._body: Iterator[bytes] = iter(())

    def perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return self._send(effect)
            case Read():
                return next(self._body, b"")
            case Call(function, arguments, None):
                return function(*arguments)
            case Call(function, arguments, Keeper() as keeper):
                with _Kept(self._client, keeper):
                    return function(*arguments)
            case Sleep(seconds):
                time.sleep(seconds)
            case Close():
                self.close()

    def _send(self, send: Send) -> httpx.Response:
        http = self._client._http
        request = http.build_request(
            send.method, send.url, headers=send.headers, content=send.content, timeout=timeouts(send)
        )
        if not send.stream:
            return http.send(request)
        self.close()
        self._response = http.send(request, stream=True)
        if self._response.status_code == 200:
            self._body = self._response.iter_bytes()
        else:
            self._response.read()
        return self._response

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


class _Kept:
    """Runs a keeper in a thread, while a function of the application runs."""

    def __init__(self, client: Annals, keeper: Keeper) -> None:
        self._client = client
        self._keeper = keeper
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._ended.wait(self._keeper.wait()):
            self._client._run(self._keeper.steps())


class Events(Reached, Iterator[Event]):
    """The events of `read`, `read_stream` and `follow`. As a context manager it closes the connection at its end."""

    def __init__(self, client: Annals, verb: Callable[[Progress], Steps[None]]) -> None:
        self._progress = Progress()
        self._events = client._drive(verb(self._progress))

    def __next__(self) -> Event:
        return cast(Event, next(self._events))

    def close(self) -> None:
        """Closes the connection."""
        self._events.close()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Aggregate(Generic[S]):
    """The aggregates of one type: `load` folds their events, `decide` appends what a function decides."""

    def __init__(
        self, client: Annals, aggregate_type: str, initial: Callable[[], S], evolve: Callable[[S, Event], S]
    ) -> None:
        self._client = client
        self._type = aggregate_type
        self._fold = initial, evolve

    def load(self, aggregate_id: str) -> Loaded[S]:
        """Returns the state and the version of an aggregate."""
        return self._client._run(self._client._verbs.load(self._type, aggregate_id, *self._fold))

    def decide(self, aggregate_id: str, decision: Callable[[S], NewEvents | None]) -> Decided[S]:
        """Loads an aggregate, and appends what `decision` returns for its state: an event, several, or None.

        After a conflict, `decision` is called again with the new state. Raises `VersionConflict` if the conflicts do
        not end within `patience`. `decision` must not change the state, and must have no effect of its own.
        """
        return self._client._run(self._client._verbs.decide(self._type, aggregate_id, *self._fold, decision))
