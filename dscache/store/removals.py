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
    """The removals under way in one cache root. `timeout` is how long one is waited for."""

    def __init__(self, layout: Layout, timeout: float) -> None:
        self._layout = layout
        self._timeout = timeout

    @contextmanager
    def said(self, what: Iterable[str]) -> Iterator[Callable[[], None]]:
        """While this lasts, others know that these datasets (marks) or blobs (sha256) may go.

        Yields what says, called at least every minute, that it still goes on: other hosts take
        one who is silent for dead.
        """
        path = f"{self._layout.removals}/{os.urandom(8).hex()}.json"
        removal = _Removal(this_process(), frozenset(what))
        filesystem.publish_bytes(msgspec.json.encode(removal), path)
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
        return (path for path, removal in self._all() if _has_ended(path, removal))

    def _busy_with(self, wanted: frozenset[str]) -> str:
        for path, removal in self._all():
            if not wanted.isdisjoint(removal.what) and not _has_ended(path, removal):
                return in_words(removal.owner)
        return ""

    def _all(self) -> Iterator[tuple[str, _Removal]]:
        for name in disk.names(self._layout.removals):
            path = f"{self._layout.removals}/{name}"
            if not name.endswith(".json"):
                continue
            try:
                yield path, msgspec.json.decode(disk.read_small(path, _MAX_FILE), type=_Removal)
            except FileNotFoundError:
                continue  # over by now
            except OSError as error:
                raise disk.storage_error("a removal cannot be read", error) from error
            except msgspec.MsgspecError as error:
                raise StorageError(f"{path} makes no sense", hint="remove that file") from error


def _has_ended(path: str, removal: _Removal) -> bool:
    gone = is_gone(removal.owner)
    if gone is not None:
        return gone
    try:
        return time.time() - os.stat(path).st_mtime > _SILENCE
    except FileNotFoundError:
        return True
