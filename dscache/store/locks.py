"""Locks between processes. They save work; no content guarantee depends on them.

A lock file is opened read-write (NFSv4 wants that) and never removed, since waiters could split
across two inodes. Beside it a `.holder` file names who has it, for the message of those who wait.
Where a filesystem knows no locks, everybody goes ahead. filelock is used here and nowhere else.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import filelock
import msgspec

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.quantities import show_duration
from dscache.store.layout import Layout
from dscache.store.owner import host_name

#: How often those who wait look who holds the lock now, in seconds.
_LOOK_AGAIN = 5.0
_POLL = 0.05
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


class _Holder(msgspec.Struct, frozen=True):
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lock:
    """A lock that is held; `release` ends it."""

    def __init__(self, held: filelock.BaseFileLock) -> None:
        self._held = held

    def release(self) -> None:
        """Let the next one in. Releasing twice is fine."""
        self._held.release()


class Locks:
    """The locks of one cache root."""

    def __init__(self, layout: Layout, timeout: float) -> None:
        self._layout = layout
        self._timeout = timeout

    def attempt(self, key: str) -> Lock | None:
        """Take the lock now, or return None if somebody else has it."""
        lock = self._lock(key)
        return self._taken(key, lock) if _acquired(lock, 0) else None

    def wait(self, key: str, on_wait: Callable[[str], None]) -> Lock:
        """Take the lock, waiting for it; `on_wait` hears who holds it, again when that changes.

        Raises:
            StorageError: not free within the lock timeout; the message names the holder.
        """
        lock = self._lock(key)
        if _acquired(lock, 0):
            return self._taken(key, lock)
        end = time.monotonic() + self._timeout
        told = ""
        while (left := end - time.monotonic()) > 0:
            if (holder := self.holder(key)) != told:
                on_wait(told := holder)
            if _acquired(lock, min(left, _LOOK_AGAIN)):
                return self._taken(key, lock)
        raise StorageError(
            f"waited {show_duration(self._timeout)} for a lock held by {self.holder(key)}",
            hint="if that process is stuck, end it and try again; "
            "`lock_timeout` in the configuration sets how long to wait",
            lock=self._layout.lock(key),
        )

    def holder(self, key: str) -> str:
        """Who has the lock, in words."""
        try:
            data = disk.read_small(self._layout.holder(key), 4096)
            return str(msgspec.json.decode(data, type=_Holder))
        except (OSError, StorageError, msgspec.MsgspecError):
            return "another process"

    def _lock(self, key: str) -> filelock.BaseFileLock:
        path = self._layout.lock(key)
        with disk.storage_errors("the cache's locks cannot be used"):
            filesystem.make_folder(os.path.dirname(path))
        return filelock.FileLock(path, thread_local=False, poll_interval=_POLL)

    def _taken(self, key: str, lock: filelock.BaseFileLock) -> Lock:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = msgspec.json.encode(_Holder(host_name(), os.getpid(), now))
        with suppress(OSError):  # only a message is lost
            filesystem.publish_bytes(holder, self._layout.holder(key))
        return Lock(lock)


def _acquired(lock: filelock.BaseFileLock, timeout: float) -> bool:
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise disk.storage_error("the cache's locks cannot be used", error) from error
    return True
