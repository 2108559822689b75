"""Rows C25 to C40 of the conformance list."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import begin_epoch, numbers
from proxy import Exchange, Proxy, cut, status

from annals_client import (
    Annals,
    AsyncAnnals,
    ClaimLost,
    EpochChanged,
    EventFailed,
    EventNotFound,
    Forbidden,
    NoReducer,
    PositionConflict,
    PositionRegressed,
    Problem,
    ProjectionBehind,
    ProjectionNotFound,
    StreamNotFound,
    Unauthenticated,
)
from annals_client._effects import Try

CONFORMANCE = (Path(__file__).parents[2] / "conformance.md").read_text("utf-8")


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


def epoch(client: Any) -> int:
    number: int = client.request("GET", "/events?after=head")["epoch"]
    return number


def test_a_projection_rewinds_if_the_log_is_shorter_than_its_cursor(client: Any, kind: str) -> None:
    end = client.append(kind, "a", numbers(1))["global_position"]
    rewound: list[int] = []
    client.project(
        kind,
        {},
        lambda events, cursor: None,
        after=f"{epoch(client)}:999999999",
        on_rewind=lambda change: rewound.append(change.rewind_to),
        until_caught_up=True,
    )
    assert len(rewound) == 1 and rewound[0] >= end
    assert position(client, kind) >= end


def test_a_projection_moves_back_to_the_cursor_that_on_rewind_returns(client: Any, kind: str) -> None:
    start = client.append(kind, "a", numbers(3))["global_position"] - 3
    client.request("PUT", f"/projections/{kind}", {"last_processed_position": start + 2})
    current = epoch(client)
    handled: list[Any] = []
    client.project(
        kind,
        {"aggregate_type": kind},
        lambda events, cursor: handled.extend(events),
        after=f"{current}:999999999",
        on_rewind=lambda change: f"{current}:{start}",
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


def test_c38_a_projection_begins_again_with_reset_only(client: Any, kind: str) -> None:
    end = client.append(kind, "a", numbers(3))["global_position"]
    handled: list[int] = []

    def handle(events: list[Any], cursor: str) -> None:
        handled.extend(event["event_data"]["n"] for event in events)

    def run(**options: Any) -> None:
        client.project(kind, {"aggregate_type": kind}, handle, until_caught_up=True, **options)

    run()
    with pytest.raises(PositionRegressed) as regression:
        run(after=f"{epoch(client)}:0")
    assert regression.value.current_position is not None and regression.value.current_position >= end
    assert handled == [1, 2, 3]
    run(reset=True)
    run(reset=True, after=0)
    assert handled == [1, 2, 3] * 3
    assert position(client, kind) >= end


def test_c39_a_client_waits_for_a_projection(client: Any, other: Annals, kind: str) -> None:
    end = client.append(kind, "a", numbers(1))["global_position"]
    with pytest.raises(ProjectionNotFound):
        client.wait_for(kind, end)
    client.request("PUT", f"/projections/{kind}", {"last_processed_position": end - 1})
    with pytest.raises(ProjectionBehind) as problem:
        client.wait_for(kind, end, timeout=1)
    assert problem.value.document["lag"] >= 1
    move = threading.Thread(
        target=other.request, args=["PUT", f"/projections/{kind}", {"last_processed_position": end}]
    )
    move.start()
    assert client.wait_for(kind, end, timeout=30)["last_processed_position"] == end
    move.join()


# --- Work ---


def start_group(client: Any, kind: str, ids: str, **settings: Any) -> list[int]:
    """Appends an event to each of these streams, and creates a group with one partition for them."""
    positions = [client.append(kind, stream, numbers(1))["global_position"] for stream in ids]
    client.request("PUT", f"/groups/{kind}", {"filter": {"aggregate_type": [kind]}, "partitions": 1, **settings})
    return positions


def run_until(handled: list[Any], count: int) -> Any:
    return lambda: len(handled) >= count


def in_handler(client: Any, wait: Any) -> Any:
    """Waits in a handler. One that is asynchronous does not block the event loop."""
    return wait() if type(client) is Annals else asyncio.to_thread(wait)


def test_c28_a_failed_event_parks_its_stream(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    positions = start_group(other, kind, "abacbad", retry_after=[3600])
    handled: list[Any] = []

    def handle(event: Any, claim: Any) -> None:
        if event["aggregate_id"] == "a":
            raise EventFailed("card declined", park=True)
        if event["aggregate_id"] == "c":
            raise ValueError("no address")
        handled.append((event["aggregate_id"], event["version"]))

    options = {"worker": "m-1", "limit": 6, "wait": 1, "stop": run_until(handled, 3)}
    reported: list[Any] = []
    connect(proxy.url).work(
        kind,
        handle,
        on_failed=lambda event, error: reported.append((event["aggregate_id"], str(error))),
        **options,
    )
    assert handled == [("b", 1), ("b", 2), ("d", 1)]
    assert reported == [("a", "card declined"), ("c", "no address")]
    first, second = proxy.sent("PUT")
    failed = [
        {"global_position": positions[0], "reason": "card declined", "retry_after": None},
        {"global_position": positions[3], "reason": "ValueError: no address"},
    ]
    assert first.json == {"last_processed_position": positions[5], "failed": failed}
    assert first.query == {"next": ["true"], "limit": ["6"], "wait": ["1"]}
    # The second claim came with the acknowledgement, and is released because the worker stops.
    assert second.json == {"last_processed_position": positions[6], "failed": [], "release": True}
    [claimed] = proxy.sent("POST")
    assert claimed.json == {"worker": "m-1"} and claimed.headers["Idempotency-Key"]
    parked = other.request("GET", f"/groups/{kind}/parked/{kind}/a")
    assert (parked["reason"], parked["waiting"], parked["retry_at"]) == ("card declined", 2, None)


def test_failures_are_logged_without_on_failed(client: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    start_group(client, kind, "ab")
    handled: list[str] = []

    def handle(event: Any, claim: Any) -> None:
        handled.append(event["aggregate_id"])
        if event["aggregate_id"] == "a":
            event["event_data"]["address"]

    client.work(kind, handle, stop=run_until(handled, 2))
    [record] = [record for record in caplog.records if record.name == "annals_client"]
    assert record.levelname == "WARNING" and f"{kind}/a@1" in record.getMessage()
    assert record.exc_info is not None and record.exc_info[0] is KeyError


def test_an_error_of_on_failed_releases_the_claim(client: Any, kind: str) -> None:
    start_group(client, kind, "ab", lease_seconds=3600)

    def fail(*_: Any) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        client.work(kind, fail, on_failed=fail)
    group = client.request("GET", f"/groups/{kind}")
    assert (group["open_claims"], group["parked_streams"]) == (0, 1)


@pytest.mark.parametrize("handle", [lambda event: None, lambda: None, lambda event, claim, more: None])
def test_a_handler_with_other_parameters_fails_at_once(connect: Any, proxy: Any, kind: str, handle: Any) -> None:
    with pytest.raises(TypeError, match="handle must accept an event and a claim"):
        connect(proxy.url).work(kind, handle)
    assert proxy.requests == []


def test_c29_the_lease_is_extended_while_the_handler_runs(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    positions = start_group(other, kind, "abc", lease_seconds=6)
    handled: list[str] = []
    ended = threading.Event()

    def compete() -> None:
        other.work(kind, lambda event, claim: handled.append("the rival"), wait=1, stop=ended.is_set)

    rival = threading.Thread(target=compete, daemon=True)

    def extensions() -> list[Any]:
        return [sent for sent in proxy.sent("PUT") if not sent.query and "release" not in sent.json]

    def handle(event: Any, claim: Any) -> Any:
        if event["aggregate_id"] == "a":
            raise EventFailed("later", retry_after=60)
        handled.append(event["aggregate_id"])
        if event["aggregate_id"] == "b":
            rival.start()
            return in_handler(client, lambda: proxy.wait_until(lambda: len(extensions()) >= 3))

    client = connect(proxy.url)
    client.work(kind, handle, wait=1, stop=lambda: not {"c", "the rival"}.isdisjoint(handled))
    ended.set()
    rival.join()
    assert handled == ["b", "c"]
    failed = {"global_position": positions[0], "reason": "later", "retry_after": 60}
    assert [sent.json for sent in extensions()[:3]] == [
        {"last_processed_position": positions[0], "failed": [failed]},
        {"last_processed_position": positions[0], "failed": []},
        {"last_processed_position": positions[0], "failed": []},
    ]


def test_c30_a_lost_claim_is_discarded_and_the_worker_claims_again(
    connect: Any, proxy: Any, other: Annals, kind: str
) -> None:
    start_group(other, kind, "ab", lease_seconds=1)
    claims = f"/groups/{kind}/claims"
    handled: list[tuple[str, str]] = []
    taken: list[str] = []
    lost: list[str | None] = []

    def handle(event: Any, claim: Any) -> Any:
        handled.append((event["aggregate_id"], claim["claim_id"]))
        if len(handled) == 1:
            other.request("DELETE", f"{claims}/{claim['claim_id']}")
            taken.append(other.request("POST", claims, {"worker": "m-2"})["claim_id"])
            return in_handler(client, lambda: proxy.wait_until(lambda: proxy.sent("PUT") != []))

    def on_claim_lost(error: ClaimLost) -> None:
        lost.append(error.claimed_by)
        other.request("DELETE", f"{claims}/{taken[0]}")

    client = connect(proxy.url)
    client.work(kind, handle, wait=1, on_claim_lost=on_claim_lost, stop=run_until(handled, 3))
    assert lost == ["m-2"]
    assert [stream for stream, _ in handled] == ["a", "a", "b"]
    assert handled[0][1] != handled[1][1] == handled[2][1]
    assert len({sent.headers["Idempotency-Key"] for sent in proxy.sent("POST")}) == 2


class Killed(BaseException):
    """Ends a worker in its handler, without any further request."""


def test_c34_another_worker_gets_the_events_of_a_killed_one(connect: Any, service: Any, kind: str) -> None:
    client = connect(service.url)
    start_group(client, kind, "ababa", lease_seconds=1)
    first: list[tuple[str, int]] = []
    second: list[tuple[str, int]] = []

    def handle(event: Any, claim: Any) -> None:
        first.append((event["aggregate_id"], event["version"]))
        if len(first) == 3:
            raise Killed

    with pytest.raises(Killed):
        client.work(kind, handle)
    client.work(
        kind,
        lambda event, claim: second.append((event["aggregate_id"], event["version"])),
        stop=run_until(second, 5),
    )
    assert second == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3)]
    assert first == second[:3]


def test_c35_a_parked_stream_is_tried_again(client: Any, kind: str) -> None:
    start_group(client, kind, "aba", retry_after=[0])
    handled: list[Any] = []

    def handle(event: Any, claim: Any) -> None:
        handled.append((event["aggregate_id"], event["version"], claim["retry"]))
        if len(handled) == 1:
            raise EventFailed("mailbox full")

    client.work(kind, handle, stop=run_until(handled, 4))
    retry = {"aggregate_type": kind, "aggregate_id": "a", "attempts": 1, "reason": "mailbox full"}
    assert handled == [("a", 1, None), ("b", 1, None), ("a", 1, retry), ("a", 2, retry)]
    assert client.request("GET", f"/groups/{kind}")["parked_streams"] == 0


def test_c36_lost_answers_lose_no_claim(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    start_group(other, kind, "abc", lease_seconds=3600)
    claims = f"/groups/{kind}/claims"
    proxy.next("POST", claims, cut)
    # The first PUT extends the lease of the first claim.
    proxy.next("PUT", claims, Exchange.forward, cut)
    handled: list[Any] = []

    def handle(event: Any, claim: Any) -> None:
        extensions = [sent.json for sent in proxy.sent("PUT") if sent.route == f"{claims}/{claim['claim_id']}"]
        assert all(
            sent == {"last_processed_position": claim["last_processed_position"], "failed": []} for sent in extensions
        )
        handled.append((event["aggregate_id"], len(extensions)))

    connect(proxy.url).work(kind, handle, limit=1, stop=run_until(handled, 3))
    assert handled == [("a", 1), ("b", 1), ("c", 0)]
    first, second = proxy.sent("POST")
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    lost, repeated, _ = [sent for sent in proxy.sent("PUT") if sent.query]
    assert (lost.path, lost.body) == (repeated.path, repeated.body)


def test_c37_a_worker_that_stops_releases_its_claim(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    positions = start_group(other, kind, "abc", lease_seconds=3600)
    handled: list[str] = []

    def handle(event: Any, claim: Any) -> None:
        handled.append(event["aggregate_id"])

    client = connect(proxy.url)
    client.work(kind, handle, stop=run_until(handled, 1))
    [released] = proxy.sent("PUT")
    assert released.json == {"last_processed_position": positions[0], "failed": [], "release": True}
    client.work(kind, handle, stop=run_until(handled, 3))
    assert handled == ["a", "b", "c"]
    assert other.request("GET", f"/groups/{kind}")["open_claims"] == 0


def released_after_an_end(proxy: Proxy, other: Annals, kind: str, error: type[BaseException], run: Any) -> None:
    """Runs a worker whose handler ends it at the second of three events."""
    positions = start_group(other, kind, "abc", lease_seconds=3600)
    with pytest.raises(error):
        run()
    [released] = proxy.sent("PUT")
    assert released.json == {"last_processed_position": positions[0], "failed": [], "release": True}
    assert other.request("GET", f"/groups/{kind}")["open_claims"] == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_a_program_releases_its_claim(proxy: Any, other: Annals, kind: str, error: Any) -> None:
    def handle(event: Any, claim: Any) -> None:
        if event["aggregate_id"] == "b":
            raise error

    released_after_an_end(proxy, other, kind, error, lambda: Annals(proxy.url).work(kind, handle))


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError])
def test_the_end_of_a_task_releases_its_claim(proxy: Any, other: Annals, kind: str, error: Any) -> None:
    async def handle(event: Any, claim: Any) -> None:
        if event["aggregate_id"] == "b":
            if error is SystemExit:
                raise SystemExit
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    async def run() -> None:
        async with AsyncAnnals(proxy.url) as client:
            await client.work(kind, handle)

    released_after_an_end(proxy, other, kind, error, lambda: asyncio.run(run()))


def test_a_claim_that_arrives_after_the_stop_is_released(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    start_group(other, kind, "ab", lease_seconds=3600)
    handled: list[str] = []
    connect(proxy.url).work(
        kind,
        lambda event, claim: handled.append(event["aggregate_id"]),
        limit=1,
        stop=lambda: proxy.sent("PUT") != [],
    )
    assert handled == ["a"]
    assert len(proxy.sent("DELETE")) == 1
    assert other.request("GET", f"/groups/{kind}")["open_claims"] == 0


def test_a_worker_continues_after_an_outage(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    start_group(other, kind, "ab", lease_seconds=3600)
    down = status(503, "database_unavailable", Retry_After="0")
    proxy.next("POST", "/groups", down, down)
    proxy.next("PUT", "/groups", down, down)
    handled: list[str] = []
    client = connect(proxy.url, patience=0.0)
    client.work(kind, lambda event, claim: handled.append(event["aggregate_id"]), limit=1, stop=run_until(handled, 2))
    assert handled == ["a", "b"]


def test_a_claim_whose_lease_cannot_be_extended_is_released(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    positions = start_group(other, kind, "ab", lease_seconds=1)
    handled: list[tuple[str, str]] = []

    def drop_extensions(exchange: Exchange) -> None:
        if exchange.query or "release" in exchange.json:
            exchange.forward()

    def handle(event: Any, claim: Any) -> Any:
        handled.append((event["aggregate_id"], claim["claim_id"]))
        if len(handled) == 1:
            # The first try comes after a third of the lease, the others after a sixth each.
            return in_handler(client, lambda: proxy.wait_until(lambda: len(proxy.sent("PUT")) >= 5))

    proxy.next("PUT", "/groups", *[drop_extensions] * 100)
    client = connect(proxy.url)
    client.work(kind, handle, stop=run_until(handled, 2))
    assert [stream for stream, _ in handled] == ["a", "b"]
    assert handled[0][1] != handled[1][1]
    released = next(sent.json for sent in proxy.sent("PUT") if "release" in sent.json)
    assert released == {"last_processed_position": positions[0], "failed": [], "release": True}


@pytest.mark.parametrize("reason", ["", " ", "no\0 address", "half \ud83d", "long" * 300])
def test_the_reason_of_a_failure_may_be_any_text(client: Any, kind: str, reason: str) -> None:
    start_group(client, kind, "ab")
    handled: list[str] = []

    def handle(event: Any, claim: Any) -> None:
        handled.append(event["aggregate_id"])
        if event["aggregate_id"] == "a":
            raise EventFailed(reason, retry_after=3599.5)

    client.work(kind, handle, stop=run_until(handled, 2))
    [parked] = client.request("GET", f"/groups/{kind}/parked")["parked_streams"]
    assert parked["aggregate_id"] == "a" and parked["reason"]


def test_work_calls_on_rewind_if_the_epoch_has_changed(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    def changed(exchange: Any) -> None:
        exchange.problem(409, "epoch_changed", rewind_to=3, epoch=2)

    # The worker gets the events again when the lease of the refused claim has ended.
    start_group(other, kind, "a", lease_seconds=1)
    proxy.next("PUT", "/groups", changed)
    handled: list[str] = []
    rewound: list[int] = []
    client = connect(proxy.url)
    client.work(
        kind,
        lambda event, claim: handled.append(event["aggregate_id"]),
        on_rewind=lambda change: rewound.append(change.rewind_to),
        stop=lambda: len(handled) == 2,
    )
    assert (rewound, handled) == ([3], ["a", "a"])
    other.append(kind, "a", numbers(1))
    proxy.next("PUT", "/groups", changed)
    with pytest.raises(EpochChanged):
        client.work(kind, lambda event, claim: None, wait=1)


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


def test_c40_the_codes_of_the_list_have_classes(connect: Any, fake: Any) -> None:
    row = re.search(r"^\| C40 \|.*: (.*?)\. Every other", CONFORMANCE, re.MULTILINE)
    assert row is not None
    codes = re.findall("`(.*?)`", row[1])
    assert sorted(codes) == sorted(Problem.codes)
    for code in [*codes, "group_not_found"]:
        server = fake(status(503 if code == "outcome_unknown" else 409, code))
        with pytest.raises(Problem) as problem:
            connect(server.url, patience=0.0).request("GET", "/livez")
        assert type(problem.value) is Problem.codes.get(code, Problem)
        assert problem.value.code == code
        assert str(problem.value).count(f" {code}: ") == 1


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
    rows = re.findall(r"^\| C(\d+) \|", CONFORMANCE, re.MULTILINE)
    tests = {
        int(row)
        for file in Path(__file__).parent.glob("test_*.py")
        for row in re.findall(r"def test_c(\d+)_", file.read_text("utf-8"))
    }
    assert tests == {int(row) for row in rows}
