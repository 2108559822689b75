"""The JSON of requests and responses. A test compares these types with the OpenAPI document."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar
from uuid import UUID

State = TypeVar("State")

#: The version that a stream must have: 0 or `"none"` if it must not exist, `"exists"` for any version, None for all.
Expected = int | Literal["none", "exists"] | None


class _RequiredOfNewEvent(TypedDict):
    event_type: str
    event_data: Any


class NewEvent(_RequiredOfNewEvent, total=False):
    """An event to append."""

    event_id: str | None
    metadata: Mapping[str, Any] | None
    correlation_id: str | None
    causation_id: str | None


#: The events of an append: one, or several.
NewEvents = NewEvent | Iterable[NewEvent]


class _RequiredOfStreamAppend(TypedDict):
    aggregate_type: str
    aggregate_id: str
    events: Sequence[NewEvent]


class StreamAppend(_RequiredOfStreamAppend, total=False):
    """The part of an append to several streams that concerns one of them."""

    expected_version: int | Literal["none", "exists"]


class Event(TypedDict):
    """An event, as every read returns it."""

    event_id: str
    aggregate_type: str
    aggregate_id: str
    version: int
    global_position: int
    event_type: str
    event_data: Any
    metadata: dict[str, Any] | None
    occurred_at: str
    correlation_id: str | None
    causation_id: str | None


class RecordedEvent(TypedDict):
    """What the service has added to an event."""

    event_id: str
    version: int
    global_position: int
    occurred_at: str


class AppendResult(TypedDict):
    """The response to an append. `version` and `global_position` are those of the last event."""

    aggregate_type: str
    aggregate_id: str
    version: int
    first_version: int
    global_position: int
    epoch: int
    snapshot_due: bool
    events: list[RecordedEvent]


class Appended(AppendResult):
    """The result of an append. `replayed` is true if the events had been written by an earlier request."""

    replayed: bool


class AggregateState(TypedDict):
    """The state of an aggregate, computed by the reducer of its type."""

    aggregate_type: str
    aggregate_id: str
    version: int
    occurred_at: str
    state: Any
    snapshot_version: int | None
    events_folded: int


class Projection(TypedDict):
    """A projection and its position."""

    projection_name: str
    last_processed_position: int
    last_processed_at: str
    lag: int
    lag_seconds: float


class ClaimRetry(TypedDict):
    """A parked stream that a claim tries again, the number of times that its event has failed, and the last reason."""

    aggregate_type: str
    aggregate_id: str
    attempts: int
    reason: str


class Claim(TypedDict):
    """Events that a consumer group has handed out to a worker, under a lease.

    `claim_id` is a fencing token. `retry` is None for new events.
    """

    claim_id: str
    partition: int
    worker: str | None
    epoch: int
    last_processed_position: int
    claimed_to: int
    claimed_until: str
    retry: ClaimRetry | None
    events: list[Event]


class Filter(TypedDict, total=False):
    """Selects events of the log. Several values of one member are alternatives; different members are combined."""

    aggregate_type: str | Sequence[str]
    aggregate_id: str | Sequence[str]
    event_type: str | Sequence[str]
    correlation_id: str | Sequence[str]
    occurred_from: str
    occurred_to: str
    partition: str


@dataclass(frozen=True)
class Loaded(Generic[State]):
    """The state of an aggregate after the event with this version; version 0 if the stream does not exist."""

    state: State
    version: int


@dataclass(frozen=True)
class Decided(Generic[State]):
    """The state after a decision, and what was appended: None if nothing was decided."""

    state: State
    version: int
    appended: Appended | None


def uuid7() -> str:
    """Returns a UUIDv7 (RFC 9562). Ids of the same time are adjacent in the index of the store."""
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    fraction = rest * 4096 // 1_000_000  # Orders the ids within a millisecond.
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return str(UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random))


def new_event(
    event_type: str,
    event_data: Any,
    *,
    event_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
) -> NewEvent:
    """Returns an event to append, with an id: appending it again does not write it again."""
    event: NewEvent = {"event_id": event_id or uuid7(), "event_type": event_type, "event_data": event_data}
    if metadata is not None:
        event["metadata"] = metadata
    if correlation_id is not None:
        event["correlation_id"] = correlation_id
    if causation_id is not None:
        event["causation_id"] = causation_id
    return event
