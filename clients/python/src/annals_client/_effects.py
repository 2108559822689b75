"""The effects of which every verb is made.

The verbs (`_verbs.py`) are written once, as generators that yield effects and do no I/O themselves. `_sync.py` and
`_async.py` perform the effects. `Steps[T]` is such a generator, which returns a `T`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
Steps = Generator["Effect", Any, T]

#: A lost connection. httpx has more errors, which are those of a wrong call.
LOST = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.ProxyError, httpx.DecodingError)

#: What ends a program or a task, but not by force: a verb can still release what it has.
ENDING = (KeyboardInterrupt, SystemExit, asyncio.CancelledError)


@dataclass
class Try:
    """One request, as the hook `on_request` sees it. The hook may add headers. The API key is not among them.

    `seconds` is the time until the response was complete; for an event stream and for lines, until it began.
    """

    method: str
    url: str
    number: int
    headers: dict[str, str]
    status: int | None = None
    error: Exception | None = None
    seconds: float = 0.0


#: Receives each request before it is sent. What it returns, if anything, is called when the response has arrived.
OnRequest = Callable[[Try], "Callable[[Try], object] | None"]


@dataclass
class Send:
    """Sends a request, and returns the response. With `stream`, the body of a 200 is read by `Read`."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None
    timeout: float
    stream: bool = False


@dataclass
class Read:
    """Returns the next piece of the body; nothing at its end."""


@dataclass
class Close:
    """Closes the response that `Send` has opened."""


@dataclass
class Sleep:
    seconds: float


@dataclass
class Keeper:
    """Runs `steps` beside a call, each time that `wait` seconds have passed."""

    wait: Callable[[], float]
    steps: Callable[[], Steps[None]]


@dataclass
class Call:
    """Calls a function of the application, and returns its result."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keeper: Keeper | None = None


@dataclass
class Emit:
    """Gives a value to the application, which iterates."""

    value: Any


Effect = Send | Read | Close | Sleep | Call | Emit


@dataclass
class Progress:
    """What an iterator has reached."""

    cursor: str | None = None
    caught_up: bool = False
    end: dict[str, Any] | None = None


class Reached:
    """The part of an iterator that says what it has reached."""

    # Not in the iterator itself: its generator would refer to it, and a loop that ends early would not close it.
    _progress: Progress

    @property
    def cursor(self) -> str | None:
        """The cursor after the last event or heartbeat of `follow`; None for a read."""
        return self._progress.cursor

    @property
    def caught_up(self) -> bool:
        """Whether `follow` has delivered every event that existed when it began."""
        return self._progress.caught_up

    @property
    def end(self) -> dict[str, Any] | None:
        """The end line of a read: `count`, and `next_after` or `version`. None before the end."""
        return self._progress.end


def encode(document: Any) -> bytes:
    """Returns JSON. A `Decimal` becomes a number with all its digits."""
    mark = secrets.token_hex(16)
    decimals: list[str] = []

    def default(value: Any) -> str:
        if not isinstance(value, Decimal):
            raise TypeError(f"{type(value).__name__} is not JSON: convert it to text, a number, a list or a dict")
        if not value.is_finite():
            raise ValueError(f"{value} is not JSON: a number must be finite")
        decimals.append(str(value))
        return f"{mark}{len(decimals) - 1};"

    text = json.dumps(document, default=default, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if decimals:
        first, *rest = text.split(f'"{mark}')
        parts = (part.partition(';"') for part in rest)
        text = first + "".join(decimals[int(index)] + after for index, _, after in parts)
    return text.encode()


@dataclass(frozen=True)
class Frame:
    """A server-sent event. `event` is None for `caught-up` and `heartbeat`."""

    cursor: str
    name: str
    data: bytes


def parse_frames(text: bytes) -> tuple[list[Frame], bytes]:
    """Returns the complete frames, and the rest."""
    *blocks, rest = text.split(b"\n\n")
    frames = []
    for block in blocks:
        # Only "\n" ends a line: JSON may contain other characters that Python takes for line breaks.
        fields = dict(
            line.split(b": ", 1) for line in block.split(b"\n") if b": " in line and not line.startswith(b":")
        )
        if b"id" in fields:
            frames.append(Frame(fields[b"id"].decode(), fields.get(b"event", b"").decode(), fields[b"data"]))
    return frames, rest


def timeouts(send: Send) -> httpx.Timeout:
    return httpx.Timeout(send.timeout, connect=5.0)
