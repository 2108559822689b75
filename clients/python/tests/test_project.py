"""Rows C25 to C33 of the conformance list."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import begin_epoch, numbers
from proxy import Proxy, cut, status

from annals_client import (
    Annals,
    EpochChanged,
    EventFailed,
    EventNotFound,
    Forbidden,
    NoReducer,
    PositionConflict,
    PositionRegressed,
    Problem,
    ProjectionBehind,
    StreamNotFound,
    Unauthenticated,
)
from annals_client._effects import Try


def position(client: Any, name: str) -> int:
    projection: dict[str, int] = client.request("GET", f"/projections/{name}")
    return projection["last_processed_position"]


def test_c25_a_projection_handles_each_event_once(client: Any, kind: str) -> None:
    seen: list[int] = []
    for first in range(1, 1001, 100):
        client.append(kind, "a", numbers(100, first))
        end = client.append(kind + "Other", "a", numbers(5))["global_position"]

    def handle(events: list[Any], cursor: str) -> None:
        assert not events or int(cursor.split(":")[1]) >= events[-1]["global_position"]
        seen.extend(event["event_data"]["n"] for event in events)

    filter = {"aggregate_type": kind}
    client.project(kind, filter, handle, stop=lambda: len(seen) >= 300)
    assert 300 <= len(seen) <= 1000
    assert client.request("GET", f"/projections/{kind}")["last_processed_position"] > 0
    client.project(kind, filter, handle, until_caught_up=True)
    assert seen == list(range(1, 1001))
    assert position(client, kind) >= end
    client.append(kind, "a", numbers(1, 1001))
    end = client.append(kind + "Other", "a", numbers(1))["global_position"]
    client.project(kind, filter, handle, until_caught_up=True)
    assert seen == list(range(1, 1002))
    assert client.wait_for(kind, end)["last_processed_position"] >= end


def test_c26_a_second_instance_stops_the_projection(client: Any, other: Annals, kind: str) -> None:
    client.append(kind, "a", numbers(1))
    calls: list[Any] = []

    def handle(events: list[Any], cursor: str) -> None:
        calls.append(events)
        # Another instance is faster.
        start = position(other, kind)
        other.request("PUT", f"/projections/{kind}", {"last_processed_position": start + 1})

    with pytest.raises(PositionConflict) as conflict:
        client.project(kind, {"aggregate_type": kind}, handle)
    assert conflict.value.current_position == 1
    assert len(calls) == 1

    with pytest.raises(PositionRegressed):
        client.project(kind, {"aggregate_type": kind}, handle, after="1:0")
    assert len(calls) == 1


def test_c27_a_projection_rewinds_if_the_epoch_has_changed(connect: Any, mortal: Any, kind: str) -> None:
    proxy = Proxy(mortal.url)
    client = connect(proxy.url)
    end, cursor = begin_epoch(mortal, client, kind)
    filter = {"aggregate_type": kind}
    client.request("PUT", f"/projections/{kind}", {"last_processed_position": end + 2})
    with pytest.raises(EpochChanged):
        client.project(kind, filter, lambda events, cursor: None, after=cursor, until_caught_up=True)

    rewound: list[int] = []
    handled: list[Any] = []
    client.project(
        kind,
        filter,
        lambda events, cursor: handled.extend(event["event_data"]["n"] for event in events),
        after=cursor,
        on_rewind=lambda change: rewound.append(change.rewind_to),
        until_caught_up=True,
    )
    assert rewound == [end]
    _, reset, *later = proxy.sent("PUT")
    assert "reset=true" in reset.path and reset.json == {"last_processed_position": end}
    assert later[-1].json == {"last_processed_position": end + 5}
    assert handled == [4, 5, 6, 7, 8]
    assert position(client, kind) == end + 5
    proxy.close()


def test_a_projection_rewinds_if_the_log_is_shorter_than_its_cursor(client: Any, kind: str) -> None:
    end = client.append(kind, "a", numbers(1))["global_position"]
    rewound: list[int] = []
    client.project(
        kind,
        {},
        lambda events, cursor: None,
        after="1:999999999",
        on_rewind=lambda change: rewound.append(change.rewind_to),
        until_caught_up=True,
    )
    assert len(rewound) == 1 and rewound[0] >= end
    assert position(client, kind) >= end


def test_a_projection_moves_back_to_the_cursor_that_on_rewind_returns(client: Any, kind: str) -> None:
    start = client.append(kind, "a", numbers(3))["global_position"] - 3
    client.request("PUT", f"/projections/{kind}", {"last_processed_position": start + 2})
    handled: list[Any] = []
    client.project(
        kind,
        {"aggregate_type": kind},
        lambda events, cursor: handled.extend(events),
        after="1:999999999",
        on_rewind=lambda change: f"1:{start}",
        until_caught_up=True,
    )
    assert [event["event_data"]["n"] for event in handled] == [1, 2, 3]


def test_a_position_whose_response_is_lost_is_no_conflict(connect: Any, proxy: Any, kind: str) -> None:
    client = connect(proxy.url)
    end = client.append(kind, "a", numbers(3))["global_position"]
    proxy.next("PUT", "/projections", cut, cut)
    client.project(kind, {"aggregate_type": kind}, lambda events, cursor: None, until_caught_up=True)
    assert position(client, kind) >= end


def test_a_projection_continues_while_its_position_cannot_be_stored(connect: Any, proxy: Any, kind: str) -> None:
    client = connect(proxy.url, patience=0.0)
    handled: list[Any] = []
    client.append(kind, "a", numbers(3))
    proxy.next("PUT", "/projections", status(503, "database_unavailable"), cut)
    client.project(kind, {"aggregate_type": kind}, lambda events, cursor: handled.extend(events), until_caught_up=True)
    assert [event["event_data"]["n"] for event in handled] == [1, 2, 3]


def test_a_client_waits_for_a_projection(client: Any, kind: str) -> None:
    end = client.append(kind, "a", numbers(1))["global_position"]
    client.request("PUT", f"/projections/{kind}", {"last_processed_position": end - 1})
    with pytest.raises(ProjectionBehind) as problem:
        client.wait_for(kind, end, timeout=1)
    assert problem.value.document["lag"] >= 1


# --- Work: a server of the test hands out claims ---


class Group:
    """A server with one group, which hands out each of its claims once."""

    def __init__(self, claims: list[list[tuple[str, int]]], lease: float = 30) -> None:
        self.claims = [self.claim(number, events) for number, events in enumerate(claims, 1)]
        self.lease = lease
        self.acknowledged: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.changed = threading.Condition()

    def claim(self, number: int, events: list[tuple[str, int]]) -> dict[str, Any]:
        return {
            "claim_id": f"1.0.{number}",
            "last_processed_position": events[0][1] - 1,
            "claimed_to": events[-1][1],
            "events": [
                {"aggregate_type": "Order", "aggregate_id": stream, "global_position": position, "event_data": position}
                for stream, position in events
            ],
        }

    def __call__(self, exchange: Any) -> None:
        if exchange.command == "GET":
            assert exchange.route == "/groups/mailer"
            return exchange.answer(200, {"group_name": "mailer", "lease_seconds": self.lease})
        if exchange.command == "POST":
            assert exchange.route == "/groups/mailer/claims" and exchange.headers["Idempotency-Key"]
            following = self.claims.pop(0) if self.claims else None
            return exchange.answer(201, following) if following else exchange.answer(204)
        with self.changed:
            self.acknowledged.append(
                {**exchange.json, "claim": exchange.route.rsplit("/")[-1], "query": exchange.query}
            )
            self.changed.notify_all()
        if self.answers:
            return self.answers.pop(0)(exchange)
        is_next = exchange.query.get("next") == ["true"]
        claim = self.claims.pop(0) if is_next and self.claims else None
        done = {"claim_id": "1.0.1", "last_processed_position": exchange.json["last_processed_position"]}
        return exchange.answer(200, {"acknowledged": {**done, "parked_streams": 0}, "claim": claim})


def run_until(handled: list[Any], count: int) -> Any:
    return lambda: len(handled) >= count


def test_c28_a_failed_event_sets_its_stream_aside(connect: Any, fake: Any) -> None:
    group = Group([[("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)], [("a", 6)]])
    server = fake(group)
    handled: list[int] = []

    def handle(event: Any) -> None:
        if event["global_position"] in (1, 4):
            raise EventFailed("card declined", park=True) if event["global_position"] == 1 else ValueError("no address")
        handled.append(event["global_position"])

    connect(server.url).work("mailer", handle, worker="m-1", limit=50, wait=1, stop=run_until(handled, 3))
    assert handled == [2, 5, 6]
    first, second = group.acknowledged
    assert first["last_processed_position"] == 5
    assert first["failed"] == [
        {"global_position": 1, "reason": "card declined", "retry_after": None},
        {"global_position": 4, "reason": "ValueError: no address"},
    ]
    assert first["query"] == {"next": ["true"], "limit": ["50"], "wait": ["1"]}
    # The second claim came with the acknowledgement, and is released because the worker stops.
    assert (second["claim"], second["last_processed_position"], second["release"]) == ("1.0.2", 6, True)
    [claimed] = server.sent("POST")
    assert claimed.json == {"worker": "m-1"}


def test_c29_the_lease_is_extended_while_the_handler_runs(connect: Any, fake: Any) -> None:
    group = Group([[("a", 1), ("b", 2), ("c", 3)]], lease=0.6)
    handled: list[int] = []

    def handle(event: Any) -> Any:
        if event["global_position"] == 1:
            raise EventFailed("later", retry_after=60)
        if event["global_position"] == 2:
            return wait_for_extensions()
        handled.append(event["global_position"])

    def wait_for_extensions() -> Any:
        def wait() -> None:
            with group.changed:
                assert group.changed.wait_for(lambda: len(group.acknowledged) >= 2, timeout=60)

        if type(client) is Annals:
            return wait()
        import asyncio

        return asyncio.to_thread(wait)

    client = connect(fake(group).url)
    start = time.monotonic()
    client.work("mailer", handle, wait=1, stop=run_until(handled, 1))
    assert time.monotonic() - start >= 0.4
    first, second, last = group.acknowledged[0], group.acknowledged[1], group.acknowledged[-1]
    assert first["last_processed_position"] == 1 and "next" not in first["query"]
    assert first["failed"] == [{"global_position": 1, "reason": "later", "retry_after": 60}]
    assert (second["last_processed_position"], second["failed"]) == (1, [])
    assert (last["last_processed_position"], last["failed"], last["release"]) == (3, [], True)


def test_c30_a_lost_claim_is_left_and_the_worker_claims_again(connect: Any, fake: Any) -> None:
    lost = status(409, "claim_lost")
    group = Group([[("a", 1)], [("b", 2), ("b", 3)], [("c", 4)]], lease=0.6)
    group.answers = [lost, lost]
    handled: list[int] = []

    def handle(event: Any) -> Any:
        handled.append(event["global_position"])
        if event["global_position"] == 2:

            def wait() -> None:
                with group.changed:
                    assert group.changed.wait_for(lambda: len(group.acknowledged) >= 2, timeout=60)
                time.sleep(0.05)  # The answer to the extension has to arrive.

            if type(client) is Annals:
                return wait()
            import asyncio

            return asyncio.to_thread(wait)

    client = connect(fake(group).url)
    client.work("mailer", handle, wait=1, stop=lambda: 4 in handled)
    assert handled == [1, 2, 4]


def test_work_repeats_a_claim_with_the_same_key(connect: Any, fake: Any) -> None:
    group = Group([[("a", 1)]])
    server = fake(group)
    server.next("POST", "/groups", status(503, "overloaded", Retry_After="0"))
    handled: list[int] = []
    connect(server.url).work("mailer", lambda event: handled.append(1), wait=1, stop=run_until(handled, 1))
    first, second = server.sent("POST")
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_work_calls_on_rewind_if_the_epoch_has_changed(connect: Any, fake: Any) -> None:
    def changed(exchange: Any) -> None:
        exchange.problem(409, "epoch_changed", rewind_to=3, epoch=2)

    group = Group([[("a", 5)], [("a", 4)], [("a", 6)]])
    group.answers = [changed]
    handled: list[int] = []
    rewound: list[int] = []
    client = connect(fake(group).url)
    client.work(
        "mailer",
        lambda event: handled.append(event["global_position"]),
        wait=1,
        on_rewind=lambda change: rewound.append(change.rewind_to),
        stop=lambda: 4 in handled,
    )
    assert (rewound, handled) == ([3], [5, 4])
    group.answers = [changed]
    with pytest.raises(EpochChanged):
        client.work("mailer", lambda event: None, wait=1)


# --- State, errors, hooks ---


def test_c31_the_state_of_a_reducer(client: Any, kind: str) -> None:
    source = "({ init: () => ({ n: 0 }), Counted(state, event) { state.n += event.event_data.n; return state; } })"
    client.append(kind, "a", numbers(3))
    with pytest.raises(NoReducer):
        client.state(kind, "a")
    client.request("PUT", f"/reducers/{kind}", {"language": "javascript", "source": source})
    now = client.state(kind, "a")
    assert (now["state"], now["version"]) == ({"n": 6}, 3)
    assert client.state(kind, "a", version=2)["state"] == {"n": 3}
    assert client.state(kind, "a", at=now["occurred_at"])["state"] == {"n": 6}
    with pytest.raises(EventNotFound):
        client.state(kind, "a", version=4)
    with pytest.raises(StreamNotFound):
        client.state(kind, "none")


def test_c32_errors_have_the_class_of_their_code(connect: Any, service_with_keys: Any, proxy: Any, kind: str) -> None:
    with pytest.raises(Unauthenticated):
        connect(service_with_keys.url, "annals_000000000000_" + "0" * 64).append(kind, "a", numbers(1))
    reader = connect(service_with_keys.url, service_with_keys.create_key("read:Some"))
    with pytest.raises(Forbidden, match="append") as problem:
        reader.append(kind, "a", numbers(1))
    assert problem.value.status == 403 and problem.value.instance and problem.value.detail
    assert problem.value.instance in str(problem.value)

    def bad_gateway(exchange: Any) -> None:
        exchange.answer(502, b"<html><h1>Bad Gateway</h1></html>", {"Content-Type": "text/html"})

    proxy.next("POST", "/streams", bad_gateway)
    connect(proxy.url).append(kind, "a", numbers(1))
    proxy.next("POST", "/streams", *[bad_gateway] * 50)
    with pytest.raises(Problem, match="Bad Gateway") as problem:
        connect(proxy.url, patience=0.5).append(kind, "a", numbers(1))
    assert (problem.value.status, problem.value.code) == (502, "") and problem.value.tries > 1


def test_c33_a_hook_sees_every_try(connect: Any, proxy: Any, service_with_keys: Any, kind: str) -> None:
    begun: list[Try] = []
    ended: list[tuple[Any, ...]] = []

    def on_request(sent: Try) -> Any:
        assert sent.status is None
        sent.headers["X-Request-Id"] = f"try-{sent.number}"
        begun.append(sent)
        return lambda answered: ended.append((answered.number, answered.status, type(answered.error).__name__))

    proxy.service = service_with_keys.url
    key = service_with_keys.create_key("append:*")
    proxy.next("POST", "/streams", status(503, "overloaded", Retry_After="0"), cut)
    connect(proxy.url, key, on_request=on_request).append(kind, "a", numbers(1))
    assert [number for number, _, _ in ended] == [1, 2, 3]
    assert ended[0] == (1, 503, "NoneType") and ended[2] == (3, 200, "NoneType")
    assert ended[1][1] is None and "Error" in ended[1][2]
    assert {(sent.method, sent.url) for sent in begun} == {("POST", f"{proxy.url}/streams/{kind}/a")}
    assert all(sent.seconds > 0 for sent in begun)
    assert [sent.headers["X-Request-Id"] for sent in proxy.requests] == ["try-1", "try-2", "try-3"]
    assert all(sent.headers["Authorization"] == f"Bearer {key}" for sent in proxy.requests)
    assert key not in repr(begun)
    assert key not in repr(vars(connect(proxy.url, key)))


def test_the_conformance_list_and_the_tests_have_the_same_rows() -> None:
    folder = Path(__file__).parent
    rows = re.findall(r"^\| C(\d+) \|", (folder / "../../conformance.md").read_text("utf-8"), re.MULTILINE)
    tests = {
        int(row)
        for file in folder.glob("test_*.py")
        for row in re.findall(r"def test_c(\d+)_", file.read_text("utf-8"))
    }
    assert tests == {int(row) for row in rows}
