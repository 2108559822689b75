from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from facade import CLIENTS, Client
from proxy import Proxy, Step

from annals_client import Annals, uuid7
from annals_client.testing import Service, start_annals


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """A service that the tests share. Each test uses aggregate types of its own."""
    with start_annals() as running:
        yield running


@pytest.fixture(scope="session")
def service_with_keys() -> Iterator[Service]:
    with start_annals(env={"ANNALS_AUTH": "keys"}) as running:
        yield running


@pytest.fixture(scope="module")
def mortal() -> Iterator[Service]:
    """A service that a test may kill, and starts again."""
    with start_annals() as running:
        yield running


@pytest.fixture
def own_service() -> Iterator[Service]:
    """A service for one test, with an empty store."""
    with start_annals() as running:
        yield running


@pytest.fixture
def kind() -> str:
    """The aggregate type of a test."""
    return "T" + uuid7().replace("-", "")


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Makes clients of both kinds: `connect(url, key, **options)`."""
    clients: list[Client] = []

    def make(*arguments: Any, **options: Any) -> Client:
        clients.append(CLIENTS[request.param](*arguments, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., Client], service: Service) -> Client:
    return connect(service.url)


@pytest.fixture
def other(service: Service) -> Iterator[Annals]:
    """Another writer, which does not use the proxy."""
    with Annals(service.url) as writer:
        yield writer


@pytest.fixture
def proxy(service: Service) -> Iterator[Proxy]:
    running = Proxy(service.url)
    yield running
    running.close()


@pytest.fixture
def fake() -> Iterator[Callable[[Step], Proxy]]:
    """Starts a server that answers every request with a function."""
    running: list[Proxy] = []

    def start(answer: Step) -> Proxy:
        running.append(Proxy(answer_all=answer))
        return running[-1]

    yield start
    for server in running:
        server.close()


def begin_epoch(service: Service, client: Client, kind: str) -> tuple[int, str]:
    """Begins an epoch between two appends. Returns its first position, and a cursor that is beyond it."""
    end = client.append(kind, "a", numbers(3))["global_position"]
    epoch = Annals(service.url).request("GET", "/events?after=head")["epoch"]
    service.run("epoch", "--begin", "test")
    client.append(kind, "a", numbers(5, 4))
    return end, f"{epoch}:{end + 2}"


def numbers(count: int, first: int = 1, event_type: str = "Counted") -> list[Any]:
    """Returns events without ids: the client makes them."""
    return [{"event_type": event_type, "event_data": {"n": n}} for n in range(first, first + count)]
