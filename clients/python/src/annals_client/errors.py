"""The errors of the client. A problem is what the service answered; its class depends on its code."""

from __future__ import annotations

from typing import Any, ClassVar

from .types import Event


class AnnalsError(Exception):
    """Every error that this package raises for a request."""


class ConnectionLost(AnnalsError):
    """No response arrived. An append may have been written: repeating it with the same event ids is safe."""


class IncompleteResponse(AnnalsError):
    """An NDJSON response ended without an end line. The events before the cut are correct, but not all."""


class EventFailed(Exception):
    """Raised by the handler of `work`: the event could not be processed, and its stream is set aside.

    `retry_after` is the number of seconds until the next try; without it, the group decides. With `park`, the stream
    is not tried again until an operator decides.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, park: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.park = park


class Problem(AnnalsError):
    """An error response (RFC 9457). `code` is stable; it is empty if the response is not from Annals (a proxy's)."""

    codes: ClassVar[dict[str, type[Problem]]] = {}

    def __init_subclass__(cls, code: str) -> None:
        cls.codes[code] = cls

    def __init__(self, status: int, document: dict[str, Any], retry_after: float | None = None) -> None:
        super().__init__(status, document, retry_after)
        self.status = status
        #: The members of the problem document.
        self.document = document
        #: The seconds of `Retry-After`.
        self.retry_after = retry_after
        #: The number of requests that were sent, with retries.
        self.tries = 1

    @classmethod
    def new(cls, status: int, document: dict[str, Any], retry_after: float | None) -> Problem:
        """Returns a problem of the class of its code."""
        return cls.codes.get(str(document.get("code")), Problem)(status, document, retry_after)

    @property
    def code(self) -> str:
        return str(self.document.get("code", ""))

    @property
    def title(self) -> str:
        return str(self.document.get("title", ""))

    @property
    def detail(self) -> str:
        return str(self.document.get("detail", ""))

    @property
    def instance(self) -> str:
        """The id of the request, which is also in the log of the service."""
        return str(self.document.get("instance", ""))

    @property
    def errors(self) -> list[dict[str, str]]:
        """Where the request is wrong: `pointer`, `header`, `parameter` or `path`, and `detail`."""
        errors: list[dict[str, str]] = self.document.get("errors", [])
        return errors

    @property
    def is_temporary(self) -> bool:
        """Whether the same request can succeed later. 502 and 504 without a code are those of a proxy."""
        if self.status == 429:
            return self.retry_after is not None  # Other quotas are not lifted by time.
        return self.status == 503 or (self.status in (502, 504) and not self.code)

    def __str__(self) -> str:
        request = f" (request {self.instance})" if self.instance else ""
        return f"{self.status} {self.code or self.title}: {self.detail}{request}"


class InvalidRequest(Problem, code="invalid_request"):
    """400: `errors` says where."""


class Unauthenticated(Problem, code="unauthenticated"):
    """401: no key, or one that is unknown, expired or revoked."""


class Forbidden(Problem, code="forbidden"):
    """403: `detail` names the grant that the key lacks."""


class StreamNotFound(Problem, code="stream_not_found"):
    """404: the stream has no event."""


class EventNotFound(Problem, code="event_not_found"):
    """404: there is no event with this id, version or time."""


class ProjectionNotFound(Problem, code="projection_not_found"):
    """404: the projection has no position."""


class EventIdReused(Problem, code="event_id_reused"):
    """409: an event with this id exists, with other content or in another stream."""


class EventPartlyKnown(Problem, code="event_partly_known"):
    """409: some events of the append were written before, and others were not."""


class VersionConflict(Problem, code="version_conflict"):
    """412, and 409 of `/appends`: the stream is at another version. Nothing was written."""

    @property
    def expected_version(self) -> int | str | None:
        expected: int | str | None = self.document.get("expected_version")
        return expected

    @property
    def current_version(self) -> int | None:
        current: int | None = self.document.get("current_version")
        return current

    @property
    def missed_events(self) -> list[Event] | None:
        """The events after the expected version. None if the key may not read them, or for `/appends`."""
        missed: list[Event] | None = self.document.get("missed_events")
        return missed

    @property
    def missed_events_truncated(self) -> bool:
        return bool(self.document.get("missed_events_truncated", False))

    @property
    def conflicts(self) -> list[dict[str, Any]]:
        """The streams of an append to several streams that are at another version."""
        conflicts: list[dict[str, Any]] = self.document.get("conflicts", [])
        return conflicts


class EpochChanged(Problem, code="epoch_changed"):
    """409: the events after position `rewind_to` that the client has read may never have happened."""

    @property
    def rewind_to(self) -> int:
        return int(self.document["rewind_to"])

    @property
    def epoch(self) -> int | None:
        epoch: int | None = self.document.get("epoch")
        return epoch


class PositionConflict(Problem, code="position_conflict"):
    """412: another instance has moved the projection."""

    @property
    def current_position(self) -> int | None:
        current: int | None = self.document.get("current_position")
        return current


class PositionRegressed(Problem, code="position_regressed"):
    """409: the projection is at a later position."""

    @property
    def current_position(self) -> int | None:
        current: int | None = self.document.get("current_position")
        return current


class PositionBeyondHead(Problem, code="position_beyond_head"):
    """422: no event has this position."""


class ProjectionBehind(Problem, code="projection_behind"):
    """504: the projection did not reach the position in time. `document` has its `last_processed_position`, `lag`."""


class NoReducer(Problem, code="no_reducer"):
    """409: the type has no reducer."""


class ClaimLost(Problem, code="claim_lost"):
    """409: the claim has ended, and another worker may have its events."""

    @property
    def claimed_by(self) -> str | None:
        """The worker that has the partition now."""
        worker: str | None = self.document.get("claimed_by")
        return worker

    @property
    def last_processed_position(self) -> int | None:
        """The position of the partition."""
        position: int | None = self.document.get("last_processed_position")
        return position


class QuotaExceeded(Problem, code="quota_exceeded"):
    """429: the key has used its quota."""


class OutcomeUnknown(Problem, code="outcome_unknown"):
    """503: the append may have been written. Repeating it with the same event ids is safe."""
