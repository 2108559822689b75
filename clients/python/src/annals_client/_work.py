"""The verb `work`, without I/O: see `_effects.py`."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ._effects import ENDING, Call, Keeper, Sleep, Steps, encode
from ._verbs import ANSWER, Verbs, backoff, path_of, query
from .errors import AnnalsError, ClaimLost, ConnectionLost, EpochChanged, EventFailed, Problem
from .types import Claim, Event, uuid7

logger = logging.getLogger("annals_client")

#: The seconds of the only try to release a claim when an error ends the worker.
LAST_TRY = 5.0


@dataclass
class HeldClaim:
    """A claim that is being processed. Its times are those of `time.monotonic`."""

    claim: Claim
    target: str
    #: The lease began at this time, or later.
    extended_at: float
    #: When the lease is extended next.
    extend_at: float
    #: The position up to which the events are processed.
    done: int
    #: The failed events that the service does not know yet.
    failed: list[dict[str, Any]] = field(default_factory=list)
    #: The problem with which the service has refused an acknowledgement.
    refusal: Problem | None = None

    def acknowledgement(self, **members: Any) -> dict[str, Any]:
        return {"last_processed_position": self.done, "failed": self.failed, **members}


@dataclass
class Worker:
    """A worker of a consumer group."""

    verbs: Verbs
    group: str
    handle: Callable[[Event, Claim], Any]
    worker: str | None
    limit: int
    wait: int
    on_failed: Callable[[Event, Exception], Any] | None
    on_claim_lost: Callable[[ClaimLost], Any] | None
    on_rewind: Callable[[EpochChanged], Any] | None
    stop: Callable[[], bool] | None
    #: The seconds of a lease. The worker measures them with its own timer. `claimed_until` is a time of the database,
    #: whose clock may differ from that of the worker.
    lease: float = 0.0

    def run(self) -> Steps[None]:
        accepts_event_and_claim(self.handle)
        path = "/groups" + path_of(self.group)
        body = {} if self.worker is None else {"worker": self.worker}
        parameters = query({"limit": self.limit, "wait": self.wait})
        self.lease = (yield from self.verbs.request("GET", path))["lease_seconds"]
        held: HeldClaim | None = None
        while not self.is_stopped():
            start = time.monotonic()
            try:
                if held is not None:
                    held = yield from self.process(held)
                    continue
                # The key makes a repeated request return the same claim.
                key = {"Idempotency-Key": uuid7()}
                response = yield from self.lasting("POST", f"{path}/claims{parameters}", body, key)
                held = self.held(path, self.verbs.json_of(response), response)
                if held is None and time.monotonic() - start < 1.0:  # The service did not hold the request.
                    yield Sleep(random.uniform(0.5, 1.0))
            except ClaimLost as lost:
                held = None
                if self.on_claim_lost is not None:
                    yield Call(self.on_claim_lost, (lost,))
                # The settings of the group may have a shorter lease since it was read.
                response = yield from self.lasting("GET", path)
                self.lease = self.verbs.json_of(response)["lease_seconds"]
            except EpochChanged as change:
                held = None
                if self.on_rewind is None:
                    raise
                yield Call(self.on_rewind, (change,))
        if held is not None:
            yield from self.verbs.request("DELETE", held.target)

    def is_stopped(self) -> bool:
        return self.stop is not None and self.stop()

    def lasting(
        self, method: str, target: str, body: Any = None, headers: Mapping[str, str] = {}
    ) -> Steps[httpx.Response]:
        """Sends a request again through an outage of any length, until the worker is stopped."""
        content = None if body is None else encode(body)
        timeout = ANSWER + self.wait
        for failures in itertools.count(1):
            try:
                return (
                    yield from self.verbs.exchange(method, target, headers=headers, content=content, timeout=timeout)
                )
            except AnnalsError as error:
                problem = error if isinstance(error, Problem) else None
                if (problem is not None and not problem.is_temporary) or self.is_stopped():
                    raise
            yield Sleep(max(backoff(failures), problem.retry_after or 0.0 if problem else 0.0))
        raise AssertionError("the loop has no end")

    def held(self, path: str, claim: Claim | None, response: httpx.Response) -> HeldClaim | None:
        if claim is None:
            return None
        # An earlier request may have received the claim, so its lease may be nearly over.
        extended_at = -math.inf if "Idempotent-Replayed" in response.headers else time.monotonic()
        target = f"{path}/claims" + path_of(claim["claim_id"])
        return HeldClaim(claim, target, extended_at, extended_at + self.lease / 3, claim["last_processed_position"])

    def process(self, held: HeldClaim) -> Steps[HeldClaim | None]:
        """Handles the events of a claim, and acknowledges them. Returns the next claim."""
        try:
            is_complete = yield from self.handle_events(held)
        except (Exception, *ENDING):
            with contextlib.suppress(AnnalsError):
                body = held.acknowledgement(release=True)
                yield from self.verbs.request("PUT", held.target, body, timeout=LAST_TRY, patience=0.0)
            raise
        if held.refusal is not None:
            raise held.refusal
        if not is_complete or self.is_stopped():
            # Without a connection the lease may have ended. What was handled before is acknowledged.
            yield from self.lasting("PUT", held.target, held.acknowledgement(release=True))
            return None
        held.done = held.claim["claimed_to"]
        parameters = query({"next": "true", "limit": self.limit, "wait": self.wait})
        response = yield from self.lasting("PUT", held.target + parameters, held.acknowledgement())
        return self.held("/groups" + path_of(self.group), self.verbs.json_of(response)["claim"], response)

    def handle_events(self, held: HeldClaim) -> Steps[bool]:
        """Handles the events of a claim. Returns whether it has reached the last one."""
        failed_streams: set[tuple[str, str]] = set()
        keeper = Keeper(lambda: max(0.0, held.extend_at - time.monotonic()), lambda: self.extend(held))
        for event in held.claim["events"]:
            if time.monotonic() >= held.extend_at:
                yield from self.extend(held)
            is_live = time.monotonic() < held.extended_at + self.lease
            if held.refusal is not None or not is_live or self.is_stopped():
                return False
            stream = (event["aggregate_type"], event["aggregate_id"])
            # The later events of a stream that failed wait behind the failed one, and are handed out again.
            if stream not in failed_streams:
                try:
                    yield Call(self.handle, (event, held.claim), keeper)
                except Exception as error:
                    failed_streams.add(stream)
                    yield from self.fail(held, event, error)
            held.done = event["global_position"]
        return True

    def fail(self, held: HeldClaim, event: Event, error: Exception) -> Steps[None]:
        """Adds a failed event to the next acknowledgement, and reports it to the application."""
        held.failed.append(failure(event, error))
        held.done = event["global_position"]
        if self.on_failed is not None:
            yield Call(self.on_failed, (event, error))
        else:
            name = f"{event['aggregate_type']}/{event['aggregate_id']}@{event['version']}"
            logger.warning("event %s failed, and its stream is parked", name, exc_info=error)

    def extend(self, held: HeldClaim) -> Steps[None]:
        """Extends the lease by an acknowledgement of what is processed. May run beside the handler."""
        if held.refusal is not None:
            return
        start = time.monotonic()
        held.extend_at = start + self.lease / 3
        body = held.acknowledgement()
        try:
            yield from self.verbs.request("PUT", held.target, body, timeout=self.lease / 3, patience=0.0)
        except (Problem, ConnectionLost) as error:
            held.extend_at = time.monotonic() + self.lease / 6
            if isinstance(error, Problem) and not error.is_temporary:
                held.refusal = error
        else:
            held.extended_at = start
            held.failed = []


def accepts_event_and_claim(handle: Callable[..., Any]) -> None:
    """Fails if a handler has other parameters: otherwise each call would fail, and park one stream after another."""
    try:
        signature = inspect.signature(handle)
    except ValueError:  # Some functions of C have no signature.
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(f"handle must accept an event and a claim, and is {handle!r}: {error}") from None


def failure(event: Event, error: Exception) -> dict[str, Any]:
    """Returns what the acknowledgement says about an event that failed."""
    text = str(error) if isinstance(error, EventFailed) else f"{type(error).__name__}: {error}"
    # The service refuses a reason with NUL or a surrogate, and one without a visible character.
    text = text[:1000].replace("\0", "\ufffd").encode(errors="replace").decode().strip()
    member = {"global_position": event["global_position"], "reason": text or type(error).__name__}
    if isinstance(error, EventFailed) and (error.park or error.retry_after is not None):
        member["retry_after"] = None if error.park or error.retry_after is None else math.ceil(error.retry_after)
    return member
