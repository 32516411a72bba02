"""Markers: locks made of names, for filesystems whose own locks exclude nobody.

A marker is a folder that holds one file, whose name is a random token and which says whose it is.
Taking it is the rename of a folder of one's own, already filled, to the marker's name: that works
where there is none, or an empty one, and nowhere else. Letting go, and breaking what a dead process
has left, is the removal of the one file of that token, so that nobody ever breaks a marker other
than the one at which he looked. Of two who break the same, one rename wins. A holder of another
host cannot be seen from here: it is waited for. Nothing but work depends on any of this.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.malformed import MALFORMED
from dscache.store.layout import Layout
from dscache.store.owner import Owner, is_gone, this_process

#: How often those who wait look again, in seconds; a look is a request to a file server.
_POLL = 0.2

Release = Callable[[], None]


class Markers:
    """The markers of one cache root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def acquire(self, key: str, timeout: float) -> Release | None:
        """Take the marker within so many seconds; what lets go of it, or None: somebody has it.

        Raises:
            StorageError: the disk does not let markers be made.
        """
        marker = self._layout.marker(key)
        end = time.monotonic() + timeout
        with disk.storage_errors("the cache's markers cannot be used"):
            while True:
                if _is_free(marker) and (release := _take(marker)):
                    return release
                if (left := end - time.monotonic()) <= 0:
                    return None
                time.sleep(min(_POLL, left))


def _is_free(marker: str) -> bool:
    """True where nobody has it; a marker of a process that has ended is broken."""
    for name in disk.names(marker):
        if name.startswith("."):  # what NFS keeps of a removed file that somebody reads
            continue
        if not _is_left(f"{marker}/{name}"):
            return False
        filesystem.unlink(f"{marker}/{name}")
    return True


def _is_left(path: str) -> bool:
    """True if the process that made it has ended for certain, or has let go by now."""
    try:
        return is_gone(msgspec.json.decode(disk.read_small(path, 4096), type=Owner)) is True
    except FileNotFoundError:
        return True
    except (StorageError, *MALFORMED):
        return False


def _take(marker: str) -> Release | None:
    token, pid = secrets.token_hex(8), os.getpid()
    folder = f"{marker}.{token}.tmp"
    filesystem.make_folder(os.path.dirname(folder))
    filesystem.new_folder(folder)
    try:
        # Synced, since nobody could tell whose a torn one is.
        owner = msgspec.json.encode(this_process())
        filesystem.publish_bytes(owner, f"{folder}/{token}", durable=True)
        if not _put(folder, marker, token):
            return None
    finally:
        if os.path.exists(folder):
            with suppress(OSError):
                filesystem.remove_tree(folder)

    def release() -> None:
        if os.getpid() == pid:  # a fork has not taken it
            with suppress(OSError):  # it is free when this process has ended
                filesystem.unlink(f"{marker}/{token}")

    return release


def _put(folder: str, marker: str, token: str) -> bool:
    """Give the filled folder the marker's name; False if somebody was faster."""
    try:
        # Not every system replaces an empty folder; and one that is not empty is not removed.
        with suppress(OSError):
            filesystem.remove_folder(marker)
        filesystem.rename(folder, marker)
    except OSError:
        # A network disk may have done it although its answer was lost.
        if os.path.exists(f"{marker}/{token}"):
            return True
        if not os.path.isdir(marker):
            raise
        return False
    return True
