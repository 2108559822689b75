"""Tests of the example: the decisions as functions, and the programs against a real service."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import domain
from annals_client import Annals, new_event
from annals_client.testing import Service, start_annals

FOLDER = Path(__file__).parent


# --- Without a server ---


def test_an_order_is_paid_in_parts() -> None:
    placed = domain.Order(status="placed", total=100)
    assert [event["event_type"] for event in domain.pay(placed, "p-1", 40)] == ["PaymentReceived"]
    partly = domain.Order(status="placed", total=100, payments=(("p-1", 40),))
    assert [event["event_type"] for event in domain.pay(partly, "p-2", 60)] == ["PaymentReceived", "OrderPaid"]
    assert domain.pay(partly, "p-1", 40) == []
    with pytest.raises(domain.Refused, match="60 of 100 cents are open"):
        domain.pay(partly, "p-2", 61)
    with pytest.raises(domain.Refused, match="has no payment"):
        domain.cancel(partly, "too slow")


# --- With a server ---


@pytest.fixture(scope="module")
def annals() -> Iterator[Service]:
    with start_annals() as service:
        yield service


def program(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(FOLDER / name), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", cwd=FOLDER)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("orders") / "orders.db")


@pytest.fixture(scope="module")
def orders(annals: Service, database: str) -> Iterator[httpx.Client]:
    service = program("service.py", "--annals", annals.url, "--database", database, "--listen", "127.0.0.1:0")
    assert service.stdout is not None
    url = service.stdout.readline().split()[-1]
    projection = program("projection.py", "--annals", annals.url, "--database", database)
    with Annals(annals.url) as client:
        while not client.request("GET", "/projections")["projections"]:
            assert projection.poll() is None
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client
    for running in service, projection:
        running.terminate()
        running.wait()


def test_commands_conflict_and_can_be_repeated(orders: httpx.Client) -> None:
    placed = orders.put("/orders/a", json={"customer": "Ann", "total": 500}).json()
    assert (placed["status"], placed["version"]) == ("placed", 1)
    repeated = orders.put("/orders/a", json={"customer": "Ann", "total": 500}).json()
    assert (repeated["version"], repeated["position"]) == (1, None)
    assert orders.put("/orders/a", json={"customer": "Ann", "total": 501}).status_code == 409
    assert orders.post("/orders/a/payments", json={"payment_id": 1}).status_code == 400
    assert orders.get("/orders/none").status_code == 404

    # Twelve payments of 100 cents at the same time, and each of them sent twice: five fit.
    answers: list[int] = []

    def pay(number: int) -> None:
        for _ in range(2):
            body = {"payment_id": f"p-{number}", "amount": 100}
            answers.append(orders.post("/orders/a/payments", json=body).status_code)

    threads = [threading.Thread(target=pay, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 10 + [409] * 14
    state = orders.get("/orders/a").json()
    assert (state["status"], state["paid"], state["total"]) == ("paid", 500, 500)
    assert orders.get("/orders/a", params={"version": 1}).json()["status"] == "placed"
    assert orders.get("/orders/a", params={"version": 99}).status_code == 404


def test_a_client_finds_its_own_writes_in_the_list(orders: httpx.Client) -> None:
    for number in range(20):
        placed = orders.put(f"/orders/b-{number}", json={"customer": "Bob", "total": 100}).json()
        found = orders.get("/orders", params={"status": "placed", "position": placed["position"]}).json()
        assert {"id": f"b-{number}", "customer": "Bob", "open": 100} in found
        cancelled = orders.post(f"/orders/b-{number}/cancellation", json={"reason": "test"}).json()
        found = orders.get("/orders", params={"status": "placed", "position": cancelled["position"]}).json()
        assert found == []


def test_the_projection_survives_a_kill(tmp_path: Path) -> None:
    database = str(tmp_path / "orders.db")
    with start_annals() as annals, Annals(annals.url) as client:
        for number in range(200):
            placed, paid = new_event("OrderPlaced", {"customer": "Kim", "total": 1000}), new_event("OrderPaid", {})
            payments = [new_event("PaymentReceived", {"payment_id": f"p-{n}", "amount": 100}) for n in range(10)]
            events = [placed, *payments, paid]
            client.append("Order", f"k-{number}", events, "none")
        end = client.request("GET", "/events?after=head&limit=1")["next_after"]

        arguments = ["--annals", annals.url, "--database", database]
        for _ in range(3):
            running = program("projection.py", *arguments, "--slow", "0.002")
            start = stored(database)
            while stored(database) == start:
                assert running.poll() is None
            running.kill()
            running.wait()
        assert 0 < stored(database) < end
        assert program("projection.py", *arguments, "--until-caught-up").wait() == 0
        assert stored(database) == end == 200 * 12
        with contextlib.closing(sqlite3.connect(database)) as table:
            assert table.execute("SELECT DISTINCT status, open FROM orders").fetchall() == [("paid", 0)]
            assert table.execute("SELECT count(*) FROM orders").fetchone() == (200,)
        projection: Any = client.wait_for("orders", end)
        assert projection["lag"] == 0


def stored(database: str) -> int:
    """Returns the number of events whose effect is stored."""
    with contextlib.closing(sqlite3.connect(database)) as table:
        try:
            return int(table.execute("SELECT events FROM cursor").fetchone()[0])
        except (sqlite3.OperationalError, TypeError):
            return 0  # The table does not exist yet.
