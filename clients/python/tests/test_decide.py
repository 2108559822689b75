"""Rows C11 to C15 of the conformance list."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest
from conftest import numbers

from annals_client import Annals, Event, NewEvent, VersionConflict, new_event


def evolve(total: int, event: Event) -> int:
    return total + 1


class Interfering:
    """A decision beside which another writer appends."""

    def __init__(self, writer: Annals, kind: str, counts: list[int]) -> None:
        self.writer, self.kind, self.counts = writer, kind, counts
        self.states: list[int] = []

    def __call__(self, state: int) -> list[NewEvent]:
        if len(self.states) < len(self.counts):
            self.writer.append(self.kind, "a", numbers(self.counts[len(self.states)]))
        self.states.append(state)
        return [new_event("Decided", {"state": state})]


def loads(proxy: Any) -> int:
    return len(proxy.sent("GET", "/aggregates"))


def test_c11_missed_events_are_folded_and_decided_upon_without_a_load(
    connect: Any, proxy: Any, other: Annals, kind: str
) -> None:
    other.append(kind, "a", numbers(2))
    decision = Interfering(other, kind, [1])
    decided = connect(proxy.url).aggregate(kind, int, evolve).decide("a", decision)
    assert decision.states == [2, 3]
    assert (decided.state, decided.version, decided.appended["version"]) == (4, 4, 4)
    assert loads(proxy) == 1


def test_c12_truncated_missed_events_lead_to_a_load(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    decision = Interfering(other, kind, [150])
    decided = connect(proxy.url).aggregate(kind, int, evolve).decide("a", decision)
    assert decision.states == [0, 150]
    assert (decided.state, decided.version) == (151, 151)
    assert loads(proxy) == 2


def test_c13_after_three_retries_at_once_decide_waits_and_loads(
    connect: Any, proxy: Any, other: Annals, kind: str
) -> None:
    decision = Interfering(other, kind, [1] * 6)
    decided = connect(proxy.url).aggregate(kind, int, evolve).decide("a", decision)
    assert decision.states == [0, 1, 2, 3, 4, 5, 6]
    assert decided.version == 7
    # The order of requests: a load, four appends, a load, three appends.
    methods = "".join("L" if sent.command == "GET" else "A" for sent in proxy.requests)
    assert methods == "LAAAALAAA"

    endless = Interfering(other, kind, [1] * 100_000)
    with pytest.raises(VersionConflict):
        connect(proxy.url, patience=0.3).aggregate(kind, int, evolve).decide("a", endless)
    assert len(endless.states) % 4 == 0


def test_c14_deciders_in_parallel_lose_nothing(connect: Any, service: Any, other: Annals, kind: str) -> None:
    client = connect(service.url)
    counter = client.aggregate(kind, int, evolve)

    def decision(by: list[int], state: int) -> list[NewEvent]:
        return [new_event("Decided", {"state": state, "by": by})]

    def decide(thread: int) -> None:
        for n in range(50):
            counter.decide("a", functools.partial(decision, [thread, n]))

    threads = [threading.Thread(target=decide, args=[thread]) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = list(other.read_stream(kind, "a"))
    assert [event["event_data"]["state"] for event in events] == list(range(400))
    assert {tuple(event["event_data"]["by"]) for event in events} == {(t, n) for t in range(8) for n in range(50)}


def test_c15_nothing_is_appended_without_a_decision(client: Any, other: Annals, kind: str) -> None:
    client.append(kind, "a", numbers(3))
    counter = client.aggregate(kind, int, evolve)
    for nothing in [[], None]:
        decided = counter.decide("a", lambda state, nothing=nothing: nothing)
        assert (decided.state, decided.version, decided.appended) == (3, 3, None)

    def refuse(state: int) -> list[NewEvent]:
        raise KeyError("refused")

    with pytest.raises(KeyError, match="refused"):
        counter.decide("a", refuse)
    assert len(list(other.read_stream(kind, "a"))) == 3


def test_a_single_event_needs_no_list(client: Any, kind: str) -> None:
    assert client.append(kind, "a", new_event("Counted", 1), "none")["version"] == 1
    assert client.append(kind, "a", new_event("Counted", 2), idempotency_key="two")["version"] == 2
    decided = client.aggregate(kind, int, evolve).decide("a", lambda state: new_event("Decided", state))
    assert (decided.state, decided.version) == (3, 3)


def test_a_load_folds_more_events_than_one_response_has(client: Any, kind: str) -> None:
    for _ in range(11):
        client.append(kind, "a", numbers(1000))
    loaded = client.aggregate(kind, int, evolve).load("a")
    assert (loaded.state, loaded.version) == (11_000, 11_000)
    loaded = client.aggregate(kind, int, evolve).load("new")
    assert (loaded.state, loaded.version) == (0, 0)


def test_a_fold_that_returns_nothing_is_an_error(client: Any, kind: str) -> None:
    client.append(kind, "a", numbers(1))
    with pytest.raises(TypeError, match="evolve returned no state for Counted"):
        client.aggregate(kind, dict, lambda state, event: None).load("a")


def test_a_decision_may_be_asynchronous(service: Any, kind: str) -> None:
    from facade import LOOP

    from annals_client import AsyncAnnals

    async def decide(state: int) -> list[NewEvent]:
        return numbers(2)

    async def run() -> int:
        async with AsyncAnnals(service.url) as client:
            return (await client.aggregate(kind, int, evolve).decide("a", decide)).state

    assert LOOP.run(run()) == 2
