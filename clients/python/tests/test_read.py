"""Rows C16 to C24 of the conformance list."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from typing import Any

import pytest
from conftest import begin_epoch, numbers
from facade import LOOP
from proxy import Proxy, cut_lines, silent, silent_after

from annals_client import (
    Annals,
    AsyncAnnals,
    EpochChanged,
    IncompleteResponse,
    Problem,
    StreamNotFound,
    Unauthenticated,
)


def taken(events: Any, count: int) -> list[int]:
    return [next(events)["event_data"]["n"] for _ in range(count)]


class Background(threading.Thread):
    """Iterates in a thread."""

    def __init__(self, events: Any) -> None:
        super().__init__(daemon=True)
        self.events, self.seen, self.error = events, [], None
        self.changed = threading.Condition()
        self.start()

    def run(self) -> None:
        try:
            for event in self.events:
                with self.changed:
                    self.seen.append(event["event_data"]["n"])
                    self.changed.notify_all()
        except Exception as error:
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def wait_for(self, seen: list[int]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.seen == seen or self.error, timeout=60), self.seen
        assert self.error is None, self.error

    def wait_for_error(self) -> Exception:
        self.join(90)
        assert self.error is not None
        return self.error


def test_c16_a_read_is_complete_and_in_order(client: Any, kind: str) -> None:
    for first in range(1, 2501, 500):
        client.append(kind, "a", numbers(500, first))
        client.append(kind, "b", numbers(10, first, "Other"))
    events = client.read({"aggregate_type": kind, "event_type": "Counted"})
    assert [event["event_data"]["n"] for event in events] == list(range(1, 2501))
    assert events.end["count"] == 2500
    stream = client.read_stream(kind, "a")
    assert [event["version"] for event in stream] == list(range(1, 2501))
    assert stream.end == {"count": 2500, "version": 2500}
    backward = client.read_stream(kind, "a", to_version=10, limit=3, direction="backward")
    assert [event["version"] for event in backward] == [10, 9, 8]
    assert len(list(client.read({"aggregate_type": kind}, limit=7))) == 7
    with pytest.raises(StreamNotFound):
        list(client.read_stream(kind, "none"))


def test_c17_a_response_without_an_end_line_fails(connect: Any, proxy: Any, kind: str) -> None:
    client = connect(proxy.url)
    client.append(kind, "a", numbers(5))
    for read in [lambda: client.read_stream(kind, "a"), lambda: client.read({"aggregate_type": kind})]:
        proxy.next("GET", "/", cut_lines(3))
        events, seen = read(), []
        with pytest.raises(IncompleteResponse, match="without an end line"):
            for event in events:
                seen.append(event["version"])
        assert seen == [1, 2, 3]
        assert events.end is None


def test_c18_an_error_line_is_a_problem(connect: Any, fake: Any) -> None:
    problem = {"type": "/problems/internal", "title": "t", "status": 500, "detail": "d", "code": "internal"}
    lines = [{"event_id": "1", "version": 1}, {"error": problem}]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    server = fake(lambda exchange: exchange.answer(200, body, {"Content-Type": "application/x-ndjson"}))
    events = connect(server.url).read()
    assert next(events)["version"] == 1
    with pytest.raises(Problem) as error:
        next(events)
    assert (error.value.code, error.value.status) == ("internal", 500)


def test_c19_follow_resumes_after_a_crash_of_the_service(connect: Any, mortal: Any, kind: str) -> None:
    client = connect(mortal.url)
    client.append(kind, "a", numbers(3))
    events = client.follow({"aggregate_type": kind})
    assert taken(events, 3) == [1, 2, 3]
    mortal.kill()
    mortal.start()
    client.append(kind, "a", numbers(3, 4))
    assert taken(events, 3) == [4, 5, 6]
    events.close()


def test_c20_a_heartbeat_moves_the_cursor(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    client = connect(proxy.url)
    following = Background(client.follow({"aggregate_type": kind}, after="head"))
    proxy.wait_until(lambda: bool(proxy.sent("GET", "/events") and proxy.sent("GET", "/events")[1:]))
    position = other.append(kind + "Other", "a", numbers(1))["global_position"]
    while int((following.events.cursor or "0:0").split(":")[1]) < position:
        threading.Event().wait(0.01)
    cursor = following.events.cursor
    for exchange in proxy.sent("GET", "/events"):
        if exchange.query["after"] != [cursor]:
            disconnect(exchange)
    proxy.wait_until(lambda: proxy.sent("GET", "/events")[-1].query["after"] == [cursor])
    other.append(kind, "a", numbers(1))
    following.wait_for([1])


def disconnect(exchange: Any) -> None:
    import contextlib
    import socket

    with contextlib.suppress(OSError):
        exchange.connection.shutdown(socket.SHUT_RDWR)


def test_c21_a_silent_connection_is_replaced(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    other.append(kind, "a", numbers(3))
    client = connect(proxy.url, silence=0.5)
    proxy.next("GET", "/events", silent, silent_after(b'"n": 2'), silent)
    following = Background(client.follow({"aggregate_type": kind}))
    following.wait_for([1, 2, 3])
    assert len(proxy.sent("GET", "/events")) >= 4
    other.append(kind, "a", numbers(1, 4))
    following.wait_for([1, 2, 3, 4])


def test_c22_a_cursor_that_is_no_longer_valid_ends_follow(connect: Any, mortal: Any, kind: str) -> None:
    proxy = Proxy(mortal.url)
    client = connect(proxy.url)
    end, cursor = begin_epoch(mortal, client, kind)
    with pytest.raises(EpochChanged) as change:
        next(client.follow(after=cursor))
    assert change.value.rewind_to == end
    assert change.value.epoch == client.request("GET", "/events?after=head")["epoch"]
    assert len(proxy.sent("GET", "/events")) == 2
    # The events after the change arrive from the position that did not change.
    events = client.follow(after=f"{change.value.epoch}:{end}")
    assert taken(events, 5) == [4, 5, 6, 7, 8]
    events.close()
    proxy.close()


def test_c23_a_revoked_key_ends_follow(connect: Any, service_with_keys: Any, kind: str) -> None:
    key = service_with_keys.create_key("read:*", "append:*")
    client = connect(service_with_keys.url, key)
    client.append(kind, "a", numbers(1))
    following = Background(client.follow({"aggregate_type": kind}))
    following.wait_for([1])
    service_with_keys.run("keys", "revoke", key)
    assert isinstance(following.wait_for_error(), Unauthenticated)


def test_c24_an_iteration_that_ends_early_closes_its_connection(connect: Any, proxy: Any, kind: str) -> None:
    client = connect(proxy.url)
    client.append(kind, "a", numbers(1000))
    threads = set(threading.enumerate())
    for read in [client.follow, client.read]:
        for way in ["close", "drop"]:
            events = read({"aggregate_type": kind})
            assert taken(events, 1) == [1]
            events.close() if way == "close" else None
            del events
            gc.collect()
            proxy.wait_until(lambda: proxy.open_connections == 0)
    assert LOOP.tasks_that_do_not_end() == 0
    new = set(threading.enumerate()) - threads
    for thread in new:
        thread.join(timeout=10)  # Those of the proxy end a moment after their connection.
    assert not [thread for thread in new if thread.is_alive()]


def test_c24_a_cancelled_task_closes_its_connection(proxy: Proxy, service: Any, kind: str) -> None:
    async def run() -> None:
        async with AsyncAnnals(proxy.url) as client:
            await client.append(kind, "a", numbers(1))
            first = asyncio.Event()

            async def follow() -> None:
                async for _ in client.follow({"aggregate_type": kind}):
                    first.set()

            task = asyncio.create_task(follow())
            await first.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(asyncio.all_tasks()) == 1

    LOOP.run(run())
    proxy.wait_until(lambda: proxy.open_connections == 0)


def test_a_context_manager_closes_the_connection(proxy: Proxy, kind: str) -> None:
    with Annals(proxy.url) as client:
        client.append(kind, "a", numbers(1))
        with client.follow({"aggregate_type": kind}) as events:
            assert taken(events, 1) == [1]
        proxy.wait_until(lambda: proxy.open_connections == 0)


def test_text_with_other_line_breaks_is_read_as_it_was_written(client: Any, kind: str) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh\n\ni"
    client.append(kind, "a", [{"event_type": "Written", "event_data": text}])
    [event] = client.read_stream(kind, "a")
    assert event["event_data"] == text
    events = client.follow({"aggregate_type": kind})
    assert next(events)["event_data"] == text
    events.close()
