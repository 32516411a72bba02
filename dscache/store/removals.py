"""Removals: what a prune is about to take away, said before it is taken.

Who wants something writes its lease first and then looks here; who removes something says so here
first and then looks for leases. So one of the two sees the other, whatever the order, and the one
who sees a removal waits until it is over, which takes as long as a few files take to unlink.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.malformed import MALFORMED
from dscache.quantities import show_duration
from dscache.store.layout import Layout
from dscache.store.owner import Owner, in_words, is_gone, this_process

_MAX_FILE = 64 << 20
_POLL = 0.002
#: So long a process of another host may be silent, in seconds.
_SILENCE = 180


class _Removal(msgspec.Struct, frozen=True):
    owner: Owner
    what: frozenset[str]


class Removals:
    """The removals under way in one cache root.

    Args:
        timeout: how long one is waited for, in seconds.
        clock: what times the files of the cache.
    """

    def __init__(self, layout: Layout, timeout: float, clock: Callable[[], float]) -> None:
        self._layout = layout
        self._timeout = timeout
        self._clock = clock

    @contextmanager
    def said(self, what: Iterable[str]) -> Iterator[Callable[[], None]]:
        """While this lasts, others know that these datasets (marks) or blobs (sha256) may go.

        Yields what says, called at least every minute, that it still goes on: other hosts take
        one who is silent for dead.
        """
        path = f"{self._layout.removals}/{os.urandom(8).hex()}.json"
        removal = _Removal(this_process(), frozenset(what))
        try:
            filesystem.publish_bytes(msgspec.json.encode(removal), path)
        except OSError as error:
            if error.errno not in disk.FULL:
                raise
            # For an empty file there is room. Who cannot read what goes waits for whatever it is.
            os.close(filesystem.create(path))
        try:
            yield lambda: filesystem.touch(path)
        finally:
            filesystem.unlink(path)

    def wait(self, what: Iterable[str], on_wait: Callable[[str], None]) -> None:
        """Return when nothing of this is being removed any more; `on_wait` hears by whom it is.

        Raises:
            StorageError: it takes longer than the timeout.
        """
        wanted = frozenset(what)
        end = time.monotonic() + self._timeout
        told = ""
        while busy := self._busy_with(wanted):
            if busy != told:
                on_wait(told := busy)
            if time.monotonic() > end:
                raise StorageError(
                    f"waited {show_duration(self._timeout)} for a prune by {busy} to end",
                    hint=f"if it is stuck, end it; if it has ended, empty {self._layout.removals}",
                )
            time.sleep(_POLL)

    def ended(self) -> Iterator[str]:
        """The files of those whose process is gone."""
        return (path for path, removal in self._all() if self._has_ended(path, removal))

    def _busy_with(self, wanted: frozenset[str]) -> str:
        for path, removal in self._all():
            concerns = removal is None or not wanted.isdisjoint(removal.what)
            if concerns and not self._has_ended(path, removal):
                return in_words(removal.owner) if removal else "a process that cannot be named"
        return ""

    def _all(self) -> Iterator[tuple[str, _Removal | None]]:
        """The path of each, and what it says; None where it is torn, or not ours to read."""
        for name in disk.names(self._layout.removals):
            path = f"{self._layout.removals}/{name}"
            if name.endswith(".json"):
                try:
                    yield path, _read(path)
                except FileNotFoundError:
                    continue  # over by now

    def _has_ended(self, path: str, removal: _Removal | None) -> bool:
        gone = is_gone(removal.owner) if removal else None
        if gone is not None:
            return gone
        try:
            return self._clock() - os.stat(path).st_mtime > _SILENCE
        except FileNotFoundError:
            return True


def _read(path: str) -> _Removal | None:
    try:
        return msgspec.json.decode(disk.read_small(path, _MAX_FILE), type=_Removal)
    except FileNotFoundError:
        raise
    except (OSError, *MALFORMED):
        return None
