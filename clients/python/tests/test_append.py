"""Rows C1 to C10 of the conformance list."""

from __future__ import annotations

import re
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from conftest import numbers
from proxy import cut, status

from annals_client import (
    Annals,
    ConnectionLost,
    EventIdReused,
    InvalidRequest,
    QuotaExceeded,
    StreamNotFound,
    VersionConflict,
    new_event,
    uuid7,
)

NAMES = ["a:b", "%", "%2F", "a?b", "#1", "1+1", "a&b=c", '"it\'s"', "in side", "日本", "😀", "$", "a\\b", "a;b,c"]


def test_c01_each_expected_version_appends_if_right_and_conflicts_if_wrong(client: Any, kind: str) -> None:
    assert client.append(kind, "a", numbers(1), "none")["version"] == 1
    assert client.append(kind, "a", numbers(1), "exists")["version"] == 2
    assert client.append(kind, "a", numbers(1), 2)["version"] == 3
    assert client.append(kind, "a", numbers(1))["version"] == 4
    assert client.append(kind, "b", numbers(1), 0)["version"] == 1
    for stream, expected, current, missed in [
        ("a", "none", 4, 4),
        ("a", 0, 4, 4),
        ("a", 2, 4, 2),
        ("c", "exists", 0, 0),
    ]:
        with pytest.raises(VersionConflict) as conflict:
            client.append(kind, stream, numbers(1), expected)
        assert (conflict.value.expected_version, conflict.value.current_version) == (expected, current)
        assert len(conflict.value.missed_events or []) == missed
    for wrong in ["41", "some", True, 1.0]:
        with pytest.raises(ValueError, match="expected must be a version"):
            client.append(kind, "a", numbers(1), wrong)


def test_c02_an_append_whose_response_is_cut_is_retried_and_written_once(
    connect: Any, proxy: Any, other: Annals, kind: str
) -> None:
    proxy.next("POST", "/streams", cut)
    appended = connect(proxy.url).append(kind, "a", numbers(3), "none")
    assert (appended["version"], appended["replayed"]) == (3, True)
    assert [event["version"] for event in other.read_stream(kind, "a")] == [1, 2, 3]


def test_c03_a_503_is_retried_after_the_seconds_of_retry_after(connect: Any, proxy: Any, kind: str) -> None:
    overloaded = status(503, "overloaded", Retry_After="1")
    proxy.next("POST", "/streams", overloaded, overloaded)
    start = time.monotonic()
    appended = connect(proxy.url).append(kind, "a", numbers(2))
    assert time.monotonic() - start >= 2.0
    assert not appended["replayed"]
    ids = [[event["event_id"] for event in sent.json["events"]] for sent in proxy.sent("POST")]
    assert len(ids) == 3 and ids[0] == ids[1] == ids[2]


def test_c04_an_unknown_outcome_is_retried_and_written_once(connect: Any, proxy: Any, other: Annals, kind: str) -> None:
    def unknown(exchange: Any) -> None:
        exchange.upstream().read()
        exchange.problem(503, "outcome_unknown", {"Retry-After": "0"})

    proxy.next("POST", "/streams", unknown)
    assert connect(proxy.url).append(kind, "a", numbers(2))["replayed"]
    assert len(list(other.read_stream(kind, "a"))) == 2


def test_c05_a_used_quota_is_waited_for(connect: Any, service_with_keys: Any, kind: str) -> None:
    for patience in [30.0, 0.5]:
        key = service_with_keys.create_key("append:*", events_per_minute="600")
        client = connect(service_with_keys.url, key, patience=patience)
        client.append(kind, f"a{patience}", numbers(600))
        start = time.monotonic()
        if patience == 30.0:
            client.append(kind, f"a{patience}", numbers(10))
            assert time.monotonic() - start >= 1.0
        else:
            with pytest.raises(QuotaExceeded) as problem:
                client.append(kind, f"a{patience}", numbers(10))
            assert problem.value.retry_after is not None and problem.value.retry_after >= 1
            assert (problem.value.status, problem.value.tries) == (429, 1)


def test_c06_an_append_survives_a_restart_of_the_service(connect: Any, mortal: Any, kind: str) -> None:
    patient = connect(mortal.url)
    patient.append(kind, "a", numbers(1))
    tried = threading.Event()
    mortal.kill()
    try:
        hasty = connect(mortal.url, patience=0.2)
        with pytest.raises(ConnectionLost, match=f"{mortal.url}/streams/{kind}/a"):
            hasty.append(kind, "a", numbers(1))
        observed = connect(mortal.url, on_request=lambda sent: lambda answered: tried.set())
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(observed.append(kind, "a", numbers(1))))
        thread.start()
        assert tried.wait(60)
    finally:
        mortal.start()
    thread.join(60)
    assert results[0]["version"] == 2


def test_c07_a_thousand_events_are_appended_and_one_more_is_refused(connect: Any, proxy: Any, kind: str) -> None:
    client = connect(proxy.url)
    events = [new_event("Counted", n) for n in range(1000)]
    appended = client.append(kind, "a", events, "none")
    assert [event["event_id"] for event in appended["events"]] == [event["event_id"] for event in events]
    with pytest.raises(InvalidRequest) as problem:
        client.append(kind, "a", numbers(1001))
    assert problem.value.errors[0]["pointer"] == "/events"
    assert len(proxy.sent("POST")) == 2


def test_c08_odd_names_are_the_same_everywhere(client: Any, kind: str) -> None:
    for name in NAMES:
        event_type = "E" + name
        client.append(kind, name, [new_event(event_type, {"name": name})], "none")
        [event] = client.read_stream(kind, name)
        assert (event["aggregate_id"], event["event_type"], event["event_data"]) == (name, event_type, {"name": name})
        loaded = client.aggregate(kind, list, lambda state, event: [*state, event["event_type"]]).load(name)
        assert (loaded.state, loaded.version) == ([event_type], 1)
        for filter in [{"aggregate_id": name}, {"event_type": [event_type]}]:
            [found] = client.read({"aggregate_type": kind, **filter})
            assert found["aggregate_id"] == name
    listed = client.request("GET", f"/streams/{kind}?limit=1000")["streams"]
    assert [stream["aggregate_id"] for stream in listed] == sorted(NAMES, key=str.encode)
    for name in ["", ".", ".."]:
        with pytest.raises(ValueError, match="cannot be part of a path"):
            client.append(kind, name, numbers(1))


def test_c09_numbers_keep_their_digits(connect: Any, service: Any, kind: str) -> None:
    client = connect(service.url, parse_float=Decimal)
    data = {"whole": 2**53 + 1, "decimal": Decimal("0.12345678901234567891"), "text": "0.1", "list": [Decimal("1E+2")]}
    client.append(kind, "a", [new_event("Measured", data)])
    [event] = client.read_stream(kind, "a")
    assert event["event_data"] == data
    assert str(event["event_data"]["decimal"]) == "0.12345678901234567891"
    assert type(event["version"]) is type(event["global_position"]) is int
    with pytest.raises(VersionConflict) as conflict:
        client.append(kind, "a", numbers(1), "none")
    assert (conflict.value.missed_events or [])[0]["event_data"] == data
    [event] = connect(service.url).read_stream(kind, "a")
    assert event["event_data"]["whole"] == 9007199254740993
    for wrong in [Decimal("NaN"), float("inf")]:
        with pytest.raises(ValueError):
            client.append(kind, "a", [new_event("Measured", wrong)])
    with pytest.raises(TypeError, match="set is not JSON"):
        client.append(kind, "a", [new_event("Measured", {1})])


def test_c10_event_ids_of_the_application_are_used(connect: Any, proxy: Any, kind: str) -> None:
    client = connect(proxy.url)
    events = [{"event_id": uuid7(), "event_type": "Counted", "event_data": {"n": n}} for n in range(2)]
    assert not client.append(kind, "a", events)["replayed"]
    assert client.append(kind, "a", events)["replayed"]
    with pytest.raises(EventIdReused) as problem:
        client.append(kind, "a", [{**event, "event_data": "other"} for event in events])
    assert problem.value.status == 409
    assert len(proxy.sent("POST")) == 3


def test_an_idempotency_key_makes_a_call_repeatable(client: Any, kind: str) -> None:
    event = {"event_type": "Counted", "event_data": 1}
    assert not client.append(kind, "a", [event], idempotency_key="one")["replayed"]
    assert client.append(kind, "a", [event], idempotency_key="one")["replayed"]
    assert not client.append(kind, "a", [event], idempotency_key="two")["replayed"]


def test_an_append_to_several_streams_is_atomic_and_repeatable(connect: Any, proxy: Any, kind: str) -> None:
    client = connect(proxy.url)
    appends = [{"aggregate_type": kind, "aggregate_id": name, "events": numbers(2)} for name in "ab"]
    proxy.next("POST", "/appends", cut)
    results = client.append_all({**append, "expected_version": "none"} for append in appends)
    assert [(result["version"], result["replayed"]) for result in results] == [(2, True), (2, True)]
    unknown = {"aggregate_type": kind, "aggregate_id": "c", "events": [{"event_type": "Counted", "event_data": 1}]}
    with pytest.raises(VersionConflict) as conflict:
        client.append_all([{**unknown, "expected_version": "exists"}, unknown | {"aggregate_id": "d"}])
    assert [stream["aggregate_id"] for stream in conflict.value.conflicts] == ["c"]
    with pytest.raises(StreamNotFound):
        list(client.read_stream(kind, "d"))


def test_correlation_ids_may_be_any_text(client: Any, kind: str) -> None:
    client.append(kind, "a", numbers(1), correlation_id="req-77", causation_id="req-76")
    [event] = client.read({"aggregate_type": kind, "correlation_id": "req-77"})
    assert event["correlation_id"] and event["causation_id"]


def test_a_post_without_ids_is_not_repeated(connect: Any, proxy: Any, kind: str) -> None:
    client = connect(proxy.url)
    events = [new_event("Counted", 1)]
    body = {"appends": [{"aggregate_type": kind, "aggregate_id": "a", "events": events}]}
    proxy.next("POST", "/appends", cut)
    with pytest.raises(ConnectionLost):
        client.request("POST", "/appends", body)
    proxy.next("POST", "/appends", cut)
    assert [stream["version"] for stream in client.request("POST", "/appends", body, patience=5)["appends"]] == [1]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "localhost:8080", "/annals", "ftp://127.0.0.1", "http://", "http://a:b", ""]
)
def test_a_url_without_http_is_refused(connect: Any, url: str) -> None:
    message = f'{url!r} is not a URL with http:// or https://, such as "http://127.0.0.1:8080"'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        connect(url)


def test_ids_are_uuids_of_version_7_and_ordered() -> None:
    from uuid import UUID

    ids = [UUID(uuid7()) for _ in range(1000)]
    assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}
    assert len(set(ids)) == 1000
    assert abs((ids[-1].int >> 80) / 1000 - time.time()) < 60
    assert ids[0].int >> 64 <= ids[-1].int >> 64
