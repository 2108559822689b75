"""The asynchronous client with the interface of the synchronous one, so that each test is written once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from annals_client import Annals, AsyncAnnals, Event

T = TypeVar("T")

Client = Any  # Annals, or a facade with the same methods.


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def tasks_that_do_not_end(self) -> int:
        async def wait() -> int:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            return len((await asyncio.wait(tasks, timeout=10))[1]) if tasks else 0

        return self.run(wait())


LOOP = Loop()


class Facade:
    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.client = AsyncAnnals(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = attribute(*arguments, **options)
            if hasattr(result, "__anext__"):
                return FacadeEvents(result)
            return LOOP.run(result) if asyncio.iscoroutine(result) else FacadeAggregate(result)

        return call


class FacadeAggregate:
    def __init__(self, aggregate: Any) -> None:
        self.aggregate = aggregate

    def load(self, *arguments: Any) -> Any:
        return LOOP.run(self.aggregate.load(*arguments))

    def decide(self, *arguments: Any) -> Any:
        return LOOP.run(self.aggregate.decide(*arguments))


class FacadeEvents(Iterator[Event]):
    def __init__(self, events: Any) -> None:
        self.events = events

    def __getattr__(self, name: str) -> Any:
        return getattr(self.events, name)

    def __next__(self) -> Event:
        async def following() -> Event | None:
            async for event in self.events:
                return event
            return None

        event = LOOP.run(following())
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        LOOP.run(self.events.close())


CLIENTS = {"sync": Annals, "async": Facade}
