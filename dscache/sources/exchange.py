"""The protocol between the transfer engine and the sources of bytes.

A source is asked for a file from some offset on and answers with an exchange, which hands out what
has arrived since the last look. The engine sees heads, bytes and failures; it never sees a status
line, a header or a redirect.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import msgspec


class Request(msgspec.Struct, frozen=True):
    """A wish for the bytes of `url` from `start` on.

    Attributes:
        end: offset behind the last byte that is wanted; None for the end of the file. A source may
            send more or less.
        is_long: so many bytes are expected that they get a connection of their own, where the
            protocol would let several requests share one.
        validator: strong ETag or Last-Modified under which the first `start` bytes were sent; the
            rest is wanted only if it still holds. With `start` 0: the ETag of what is known, which
            is not wanted again; a failure with status 304 says that it still holds.
        is_probe: only the head is wanted. Bytes that a source sends all the same are not.
        is_signed: the URL itself is the right to its bytes; no other credentials go along.
    """

    url: str
    start: int = 0
    validator: str = ""
    end: int | None = None
    is_long: bool = False
    is_probe: bool = False
    is_signed: bool = False

    @property
    def is_plain(self) -> bool:
        """True where nothing is said but the URL: the whole file is wanted."""
        return self == Request(self.url)


class Head(msgspec.Struct, frozen=True):
    """What a source says before the bytes.

    Attributes:
        start: offset of the first byte that will come; 0 where the offset was not honoured.
        total: size of the whole file; None where it is not announced.
        validator: strong ETag, else Last-Modified; empty if none.
        media_type: as announced, without parameters.
        encoding: content encoding that nobody asked for; empty if none.
        date: when the server answered by its own clock, as HTTP writes it; empty if unknown.
    """

    start: int = 0
    total: int | None = None
    validator: str = ""
    media_type: str = ""
    encoding: str = ""
    date: str = ""


class Trouble(Enum):
    """Kinds of failure, by what can be done about them."""

    CONNECTION = "connection"  # broken, refused, stalled: the same request may work
    BUSY = "busy"  # the server asks to come back later
    REFUSED = "refused"  # the server will not serve this: another mirror may
    RANGE = "range"  # the offset does not fit: begin again from zero
    WRONG = "wrong"  # bytes came, but not the right ones
    SHORT = "short"  # the server's file is shorter than it should be
    UNSAFE = "unsafe"  # following would weaken the connection
    UNUSABLE = "unusable"  # malformed URL, unknown protocol, too many redirects
    CERTIFICATE = "certificate"  # the server's is not one that is trusted here


class Failure(msgspec.Struct, frozen=True):
    """Why an exchange ended without all its bytes. `retry_after` is in seconds."""

    trouble: Trouble
    reason: str
    status: int | None = None
    retry_after: float | None = None


class Exchange(Protocol):
    """One request under way.

    Attributes:
        is_whole: a source that cannot serve spans is at work, so that a second connection is no
            help, and nothing can be told from how fast the bytes come.
    """

    is_whole: bool
    failure: Failure | None
    done: bool

    @property
    def head(self) -> Head | None:
        """What the source has said; None as long as that is not known."""

    def take(self) -> list[bytes]:
        """The bytes that arrived since the last call; none before `head` is known."""

    def cancel(self) -> None:
        """Stop; nothing more will come. Fine on an exchange that is done."""


class Refused:
    """An exchange that failed before anybody was asked."""

    is_whole = False
    done = True

    def __init__(self, failure: Failure) -> None:
        self.head: Head | None = None
        self.failure: Failure | None = failure

    def take(self) -> list[bytes]:
        return []

    def cancel(self) -> None:
        """It has ended already."""


class Source(Protocol):
    """Starts exchanges and lets them go on."""

    def start(self, request: Request) -> Exchange: ...

    def wait(self, seconds: float) -> None:
        """Let exchanges go on until something has happened, at most that long."""

    def close(self) -> None:
        """Give everything back."""
