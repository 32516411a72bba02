"""Progress events: the one upward channel from the engine to whoever watches.

Events are frozen values; `key` tells the files of one call apart. Nothing here decides or prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Planned:
    """A call knows what it will move: `files` more files of `size` bytes in all."""

    files: int
    size: int


@dataclass(frozen=True)
class Started:
    """A file begins to arrive. `size` is None where nobody knows it; `done` bytes were kept."""

    key: str
    path: str
    size: int | None
    done: int = 0


@dataclass(frozen=True)
class Advanced:
    """`done` bytes of the file are here, counted from its start."""

    key: str
    done: int


@dataclass(frozen=True)
class Finished:
    """The file is verified and stored."""

    key: str
    size: int


@dataclass(frozen=True)
class Failed:
    """The file could not be had."""

    key: str
    message: str


@dataclass(frozen=True)
class Retrying:
    """A connection failed; the same source is asked again in `delay` seconds."""

    key: str
    reason: str
    delay: float


@dataclass(frozen=True)
class Waiting:
    """Another process is busy with the same thing; `holder` names it."""

    what: str
    holder: str


@dataclass(frozen=True)
class Notice:
    """Something the user should know although the call goes on."""

    message: str


Event = Planned | Started | Advanced | Finished | Failed | Retrying | Waiting | Notice
Emit = Callable[[Event], None]


def to_log(event: Event) -> None:
    """Hand what a silent caller must still hear to the `dscache` logger."""
    import logging  # late: a hit has nothing to say

    match event:
        case Notice(message):
            logging.getLogger("dscache").warning("%s", message)
        case Waiting(what, holder):
            logging.getLogger("dscache").info("waiting for %s: %s", what, holder)
        case Retrying(key, reason, delay):
            logging.getLogger("dscache").info("%s: %s; again in %.1f s", key, reason, delay)
        case _:
            pass
