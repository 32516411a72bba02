"""Progress events: the one upward channel from the engine to whoever watches.

Events are frozen values; `key` tells the files of one call apart. Nothing here decides or prints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import logging


class Planned(msgspec.Struct, frozen=True):
    """A call knows what it will move: `files` more files of `size` bytes in all."""

    files: int
    size: int


class Started(msgspec.Struct, frozen=True):
    """A file begins to arrive, or its size is known now; `done` bytes were kept, or are here.

    `size` is None where nobody knows it.
    """

    key: str
    path: str
    size: int | None
    done: int = 0


class Advanced(msgspec.Struct, frozen=True):
    """`done` bytes of the file are here, counted from its start."""

    key: str
    done: int


class Finished(msgspec.Struct, frozen=True):
    """The file is verified and stored."""

    key: str
    size: int


class Failed(msgspec.Struct, frozen=True):
    """The file could not be had."""

    key: str
    message: str


class Extracted(msgspec.Struct, frozen=True):
    """Of an archive that is here `done` of its `size` bytes have been unpacked; at last all."""

    path: str
    done: int
    size: int


class Checked(msgspec.Struct, frozen=True):
    """Of what is being verified `files` of `total` files have been read, `done` of `size` bytes."""

    files: int
    total: int
    done: int
    size: int


class Retrying(msgspec.Struct, frozen=True):
    """A connection failed; the same source is asked again in `delay` seconds."""

    key: str
    reason: str
    delay: float


class Linked(msgspec.Struct, frozen=True):
    """`done` files of a view stand in `folder`, of `total`, which is 0 where it is not known."""

    folder: str
    done: int
    total: int


class Waiting(msgspec.Struct, frozen=True):
    """Another process is busy with the same thing; `holder` names it."""

    what: str
    holder: str


class Idle(msgspec.Struct, frozen=True):
    """The call waits for a server, the disk or another process; told again every few seconds.

    What `progress` raises ends a call, and what has come is kept: with this event it is asked even
    where nothing moves.
    """


class Notice(msgspec.Struct, frozen=True):
    """Something the user should know although the call goes on."""

    message: str


class Placed(Notice, frozen=True):
    """How the files of a dataset came into the user's folder."""


Event = (
    Planned
    | Started
    | Advanced
    | Finished
    | Failed
    | Extracted
    | Checked
    | Retrying
    | Linked
    | Waiting
    | Idle
    | Notice
)
Emit = Callable[[Event], None]
#: What a caller says of progress: what takes the events; or True, to have it shown.
Progress = Emit | bool


def to_log(event: Event) -> None:
    """Hand what a silent caller must still hear to the `dscache` logger."""
    match event:
        case Notice(message):
            _logger().warning("%s", message)
        case Waiting(what, holder):
            _logger().info("waiting for %s: %s", what, holder)
        case Retrying(key, reason, delay):
            _logger().info("%s: %s; again in %.1f s", key, reason, delay)


def _logger() -> logging.Logger:
    import logging  # late: a hit has nothing to say

    return logging.getLogger("dscache")
