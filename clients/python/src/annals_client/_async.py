"""The asynchronous client. `_sync.py` has the same verbs, with their documentation."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
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


class AsyncAnnals:
    """The client for asyncio. Its verbs are those of `Annals`; the functions that they call may be asynchronous."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        patience: float = 30.0,
        silence: float = 45.0,
        on_request: OnRequest | None = None,
        parse_float: Callable[[str], Any] = float,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._verbs = Verbs(base_of(url), key, patience, silence, on_request, parse_float)
        self._http = http or httpx.AsyncClient()

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncAnnals:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def append(
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
        ids = idempotency_key, correlation_id, causation_id
        return await self._run(self._verbs.append(aggregate_type, aggregate_id, events, expected, *ids))

    async def append_all(self, appends: Iterable[StreamAppend]) -> list[Appended]:
        return await self._run(self._verbs.append_all(appends))

    def aggregate(
        self, aggregate_type: str, initial: Callable[[], S], evolve: Callable[[S, Event], S]
    ) -> AsyncAggregate[S]:
        return AsyncAggregate(self, aggregate_type, initial, evolve)

    def read(self, filter: Filter | None = None, *, after: str | int = 0, limit: int | None = None) -> AsyncEvents:
        return AsyncEvents(self, lambda progress: self._verbs.read(filter or {}, after, limit, progress))

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
    ) -> AsyncEvents:
        parameters = {
            "from_version": from_version,
            "to_version": to_version,
            "limit": limit,
            "direction": direction,
            "min_position": min_position,
        }
        return AsyncEvents(
            self, lambda progress: self._verbs.read_stream(aggregate_type, aggregate_id, parameters, progress)
        )

    def follow(self, filter: Filter | None = None, *, after: str | int = 0) -> AsyncEvents:
        return AsyncEvents(self, lambda progress: self._verbs.follow(filter or {}, after, progress))

    async def project(
        self,
        name: str,
        filter: Filter | None,
        handle: Callable[[list[Event], str], Awaitable[object] | object],
        *,
        after: str | int | None = None,
        on_rewind: Callable[[EpochChanged], Awaitable[str | int | None] | str | int | None] | None = None,
        reset: bool = False,
        until_caught_up: bool = False,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        await self._run(self._verbs.project(name, filter or {}, handle, after, on_rewind, reset, until_caught_up, stop))

    async def work(
        self,
        group: str,
        handle: Callable[[Event, Claim], Awaitable[object] | object],
        *,
        worker: str | None = None,
        limit: int = 100,
        wait: int = 20,
        on_failed: Callable[[Event, Exception], Awaitable[object] | object] | None = None,
        on_claim_lost: Callable[[ClaimLost], Awaitable[object] | object] | None = None,
        on_rewind: Callable[[EpochChanged], Awaitable[object] | object] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        callbacks = on_failed, on_claim_lost, on_rewind, stop
        await self._run(Worker(self._verbs, group, handle, worker, limit, wait, *callbacks).run())

    async def state(
        self, aggregate_type: str, aggregate_id: str, *, version: int | None = None, at: str | None = None
    ) -> AggregateState:
        return await self._run(self._verbs.state(aggregate_type, aggregate_id, version, at))

    async def wait_for(self, projection: str, position: int, *, timeout: int = 5) -> Projection:
        return await self._run(self._verbs.wait_for(projection, position, timeout))

    async def request(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> Any:
        return await self._run(self._verbs.other(method, target, body, headers or {}, patience))

    # --- Effects ---

    async def _run(self, steps: Steps[T]) -> T:
        """Performs the effects of a verb, and returns its result."""
        connection = _Connection(self)
        try:
            effect = next(steps)
            while True:
                try:
                    result = await connection.perform(effect)
                except (Exception, *ENDING) as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as end:
            return cast(T, end.value)
        finally:
            steps.close()
            await connection.close()

    async def _iterate(self, steps: Steps[None]) -> AsyncGenerator[Event, None]:
        """Performs the effects of a verb, and yields what it emits."""
        connection = _Connection(self)
        try:
            effect = next(steps)
            while True:
                try:
                    if isinstance(effect, Emit):
                        yield effect.value
                        result = None
                    else:
                        result = await connection.perform(effect)
                except Exception as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration:
            return
        finally:
            steps.close()
            await connection.close()


class _Connection:
    """Performs the effects of one call. Has at most one open response."""

    def __init__(self, client: AsyncAnnals) -> None:
        self._client = client
        self._response: httpx.Response | None = None
        self._body: AsyncIterator[bytes]

    async def perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return await self._send(effect)
            case Read():
                return await anext(self._body, b"")
            case Call(function, arguments, None):
                return await self._call(function, arguments)
            case Call(function, arguments, Keeper() as keeper):
                ended = asyncio.Event()
                task = asyncio.create_task(self._keep(keeper, ended))
                try:
                    return await self._call(function, arguments)
                finally:
                    ended.set()
                    await task
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Close():
                await self.close()

    async def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        result = function(*arguments)
        return await result if inspect.isawaitable(result) else result

    async def _keep(self, keeper: Keeper, ended: asyncio.Event) -> None:
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), keeper.wait())
            except (TimeoutError, asyncio.TimeoutError):
                await self._client._run(keeper.steps())

    async def _send(self, send: Send) -> httpx.Response:
        http = self._client._http
        request = http.build_request(
            send.method, send.url, headers=send.headers, content=send.content, timeout=timeouts(send)
        )
        if not send.stream:
            return await http.send(request)
        await self.close()
        self._response = await http.send(request, stream=True)
        if self._response.status_code == 200:
            self._body = self._response.aiter_bytes()
        else:
            await self._response.aread()
        return self._response

    async def close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = None


class AsyncEvents(Reached, AsyncIterator[Event]):
    """The events of `read`, `read_stream` and `follow`. As a context manager it closes the connection at its end."""

    def __init__(self, client: AsyncAnnals, verb: Callable[[Progress], Steps[None]]) -> None:
        self._progress = Progress()
        self._events = client._iterate(verb(self._progress))

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def close(self) -> None:
        await self._events.aclose()

    async def __aenter__(self) -> AsyncEvents:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncAggregate(Generic[S]):
    """The aggregates of one type: see `Aggregate`."""

    def __init__(
        self, client: AsyncAnnals, aggregate_type: str, initial: Callable[[], S], evolve: Callable[[S, Event], S]
    ) -> None:
        self._client = client
        self._type = aggregate_type
        self._fold = initial, evolve

    async def load(self, aggregate_id: str) -> Loaded[S]:
        return await self._client._run(self._client._verbs.load(self._type, aggregate_id, *self._fold))

    async def decide(
        self, aggregate_id: str, decision: Callable[[S], Awaitable[NewEvents | None] | NewEvents | None]
    ) -> Decided[S]:
        return await self._client._run(self._client._verbs.decide(self._type, aggregate_id, *self._fold, decision))
