"""Locks between processes. They save work; no content guarantee depends on them.

A lock file is opened read-write (NFSv4 wants that) and never removed, since waiters could split
across two inodes; filelock creates it with mode 0666, and the umask decides. Beside it a `.holder`
file names who has it, for the message of those who wait. Where the system's locks exclude nobody,
or there are none, markers take their place, aloud. filelock is used here and nowhere else.
"""

from __future__ import annotations

import errno
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import filelock
import msgspec
from msgspec.structs import replace

from dscache import disk, filesystem
from dscache.errors import StorageError
from dscache.events import Emit, Idle, Notice, to_log
from dscache.malformed import MALFORMED
from dscache.quantities import show_duration
from dscache.store import exclusion
from dscache.store.exclusion import Verdict
from dscache.store.layout import Layout
from dscache.store.markers import Markers, Release
from dscache.store.owner import host_name

#: How often those who wait look who holds the lock now, in seconds.
_LOOK_AGAIN = 1.0
_POLL = 0.05
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_NONE = "this filesystem has no locks"


class NoLocks(Exception):
    """This filesystem has no locks."""


class _Holder(msgspec.Struct, frozen=True):
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lock:
    """A lock that is held; `release` ends it."""

    def __init__(self, release: Release) -> None:
        self._release = release

    def release(self) -> None:
        """Let the next one in. Releasing twice is fine."""
        self._release()


class Locks:
    """The locks of one cache root. Whether the system's own can be trusted is looked up once."""

    def __init__(self, layout: Layout, timeout: float, emit: Emit = to_log) -> None:
        self._layout = layout
        self._timeout = timeout
        self._emit = emit
        self._markers = Markers(layout)
        self._trusts_system: bool | None = None

    def attempt(self, key: str) -> Lock | None:
        """Take the lock now, or return None if somebody else has it."""
        return self._acquire(key, 0)

    def wait(self, key: str, on_wait: Callable[[str], None]) -> Lock:
        """Take the lock, waiting for it; `on_wait` hears who holds it, again when that changes.

        Raises:
            StorageError: not free within the lock timeout; the message names the holder.
        """
        if lock := self._acquire(key, 0):
            return lock
        end = time.monotonic() + self._timeout
        told = ""
        while (left := end - time.monotonic()) > 0:
            if (holder := self.holder(key)) != told:
                on_wait(told := holder)
            self._emit(Idle())
            if lock := self._acquire(key, min(left, _LOOK_AGAIN)):
                return lock
        raise StorageError(
            f"waited {show_duration(self._timeout)} for a lock held by {self.holder(key)}",
            hint=f"if that process is stuck, end it{self._or_break(key)} and try again; "
            "`lock_timeout` in the configuration sets how long to wait",
            lock=self._layout.lock(key) if self._trusts_system else self._layout.marker(key),
        )

    def holder(self, key: str) -> str:
        """Who has the lock, in words."""
        try:
            data = disk.read_small(self._layout.holder(key), 4096)
            return str(msgspec.json.decode(data, type=_Holder))
        except (OSError, StorageError, *MALFORMED):
            return "another process"

    def probe(self) -> Verdict:
        """Find out whether the system's locks exclude here, and remember it."""
        found = self._find_out()
        if earlier := exclusion.known(self._layout):
            found = replace(found, across=earlier.across, peer=earlier.peer)
        if found.exclude is not None:
            exclusion.remember(self._layout, found)
        self._trusts_system = found.trusted
        return found

    def met(self, peer: str, across: bool) -> None:
        """Remember whether the system's locks exclude between this host and another one."""
        here = exclusion.known(self._layout) or self._find_out()
        exclusion.remember(self._layout, replace(here, across=across, peer=peer))
        self._trusts_system = None

    def _find_out(self) -> Verdict:
        """Whoever is refused knows already; whoever is not asks whether another process would be.

        One process at a time does that, so of many that begin at once most know from the first.
        """
        try:
            path = self._layout.host_lock(exclusion.key_here(self._layout))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # filelock warns of ENOSYS, and so do we
                release = system_lock(path, 0)
            if release is None:
                return exclusion.verdict(True, "another process was finding it out")
            try:
                gets = exclusion.second_process_gets(path)
            finally:
                release()
        except NoLocks:
            return exclusion.verdict(False, _NONE)
        except OSError as error:  # whatever it is, who takes a lock next hears of it
            return exclusion.verdict(None, f"it cannot be found out: {error}")
        if gets is None:
            return exclusion.verdict(None, "no second process could be asked")
        how = "was given the same lock" if gets else "was refused"
        return exclusion.verdict(not gets, f"a second process {how}")

    def _acquire(self, key: str, timeout: float) -> Lock | None:
        release = self._taken(key, timeout)
        if release is None:
            return None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = msgspec.json.encode(_Holder(host_name(), os.getpid(), now))
        with suppress(OSError):  # only a message is lost
            filesystem.publish_bytes(holder, self._layout.holder(key))
        return Lock(release)

    def _taken(self, key: str, timeout: float) -> Release | None:
        if self._trusts_system is None:
            self._decide()
        if self._trusts_system:
            try:
                return system_lock(self._layout.lock(key), timeout)
            except NoLocks:
                self._distrust(_NONE)
        return self._markers.acquire(key, timeout)

    def _decide(self) -> None:
        found = exclusion.known(self._layout) or self.probe()
        self._trusts_system = True
        if found.exclude is False:
            self._distrust(found.reason)
        elif found.across is False:
            self._distrust(f"{found.peer} was given the same lock")

    def _distrust(self, why: str) -> None:
        self._trusts_system = False
        self._emit(
            Notice(
                f"locks between processes do not work here ({why}); markers take their place, "
                "and `dscache doctor` says what to do"
            )
        )

    def _or_break(self, key: str) -> str:
        """A marker of another host stays when its process has ended."""
        return "" if self._trusts_system else f", or remove {self._layout.marker(key)},"


def system_lock(path: str, timeout: float) -> Release | None:
    """Take the system's lock of a file within so many seconds; None if somebody else has it.

    Raises:
        NoLocks: this filesystem has none.
        StorageError: the file cannot be made, or the lock not be taken for another reason.
    """
    with disk.storage_errors("the cache's locks cannot be used"):
        filesystem.make_folder(os.path.dirname(path))
    lock: filelock.BaseFileLock = filelock.FileLock(path, thread_local=False, poll_interval=_POLL)
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise disk.storage_error("the cache's locks cannot be used", error) from error
        raise NoLocks from error
    if isinstance(lock, filelock.SoftFileLock):  # filelock's own way out of ENOSYS
        lock.release()
        raise NoLocks
    return lock.release
