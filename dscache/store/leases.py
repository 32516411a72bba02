"""Leases: what living processes use, so that no prune takes it away.

A lease is a folder that names its process. In it stands a file for each dataset that the process
was given, and in one that a fetch has made the digests of all it is bringing. Who wants
something first writes its lease and then looks; who removes something first says so (see
`removals`) and then looks for leases: whatever the order, one of the two sees the other. So no
lock is held, neither by who uses nor by who prunes.

A lease ends with its process. Where that cannot be told (another host, another container), it ends
when it has not been renewed for a time.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from types import TracebackType

import msgspec

from dscache import disk, filesystem
from dscache.digest import Digest
from dscache.malformed import MALFORMED
from dscache.store.layout import Layout
from dscache.store.owner import Boot, Owner, in_words, is_gone, this_boot, this_process

#: No registry can have these names, which stand beside those of registries.
_OWNER, _DIGESTS = "_owner.json", "_digests"
_MAX_OWNER = 4096
_MAX_DIGESTS = 1 << 34
#: So long after its folder a lease has the name of its process, in seconds.
_NAMED = 60
#: A lease on a dataset is renewed when it is used and older than this, in seconds.
_RENEW = 3600


class Held(msgspec.Struct, frozen=True):
    """What one process uses.

    Attributes:
        holder: the process in words.
        folder: of the lease.
        marks: the datasets, each by its `mark`.
        digests: what it is bringing, as `algorithm:hex`.
    """

    holder: str
    folder: str
    marks: frozenset[str]
    digests: frozenset[str]


class Lease:
    """What this process says that it uses, until it is released.

    Methods raise the operating system's error as it comes.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def has(self, mark: str) -> bool:
        """True if it is confirmed that this process uses a dataset; renews that when it is old."""
        path = f"{self.folder}/{mark}"
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False
        if abs(time.time() - found.st_mtime) > _RENEW:
            filesystem.touch(path)
        return found.st_size > 0

    def add(self, mark: str) -> None:
        """Use a dataset, from now on; to be confirmed once no removal of it is under way."""
        path = f"{self.folder}/{mark}"
        self._name_owner()
        filesystem.make_folder(os.path.dirname(path))
        with suppress(FileExistsError):  # another thread was faster
            os.close(filesystem.create(path))

    def confirm(self, mark: str) -> None:
        """Note that no removal is under way that began before this lease."""
        filesystem.append(f"{self.folder}/{mark}", b"\n")

    def announce(self, digests: Iterable[Digest]) -> None:
        """Say that these are going to be looked for, or brought."""
        lines = "".join(f"{each}\n" for each in digests).encode()
        if lines:
            self._name_owner()
            filesystem.append(f"{self.folder}/{_DIGESTS}", lines)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Use nothing any more; doing it twice is fine.

        What cannot be removed counts no longer than the process, and goes with a prune.
        """
        with suppress(OSError):
            for name in disk.names(self.folder):
                if name != _OWNER:  # it goes last: a lease of nobody would count for long
                    _remove(f"{self.folder}/{name}")
            filesystem.remove_tree(self.folder)

    def _name_owner(self) -> None:
        """Say whose lease it is, before anything stands in it."""
        path = f"{self.folder}/{_OWNER}"
        if not os.path.exists(path):
            filesystem.publish_bytes(msgspec.json.encode(this_process()), path)


class Leases:
    """The leases of one cache root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def of_process(self) -> Lease:
        """The lease that lasts as long as this process."""
        folder = f"{self._layout.leases}/{_own_name(os.getpid(), this_boot())}"
        return _ProcessLease(folder)

    def new(self) -> Lease:
        """A lease that lasts until it is released."""
        return Lease(f"{self._layout.leases}/{os.getpid()}-{os.urandom(8).hex()}")

    def living(self, now: float, ttl: float) -> Iterator[Held]:
        """Those that count. `ttl` is in seconds, for what cannot be told from here.

        Raises:
            OSError: they cannot be read.
        """
        for folder in self._folders():
            owner = _owner(folder)
            if not _has_ended(folder, owner, now, ttl):
                yield Held(_words(owner), folder, frozenset(_marks(folder)), _digests(folder))

    def ended(self, now: float, ttl: float) -> Iterator[tuple[str, str]]:
        """The folders of those that do not count any more, each with its process in words."""
        for folder in self._folders():
            owner = _owner(folder)
            if _has_ended(folder, owner, now, ttl):
                yield folder, _words(owner)

    def _folders(self) -> Iterator[str]:
        return (f"{self._layout.leases}/{name}" for name in disk.names(self._layout.leases))


class _ProcessLease(Lease):
    def _name_owner(self) -> None:
        if not os.path.exists(self.folder):
            atexit.register(_release, self, os.getpid())
        super()._name_owner()


def _release(lease: Lease, pid: int) -> None:
    """At the end of a process; not of its forks, which inherit what is registered."""
    if pid == os.getpid():
        lease.release()


# Both arguments tell processes apart: a fork has another pid, a restored container another boot.
@lru_cache(maxsize=1)
def _own_name(pid: int, _boot: Boot | None) -> str:
    import hashlib  # late: once per process

    unique = hashlib.sha256(msgspec.json.encode(this_process())).hexdigest()
    return f"{pid}-{unique[:16]}"


def _remove(path: str) -> None:
    if os.path.isdir(path):
        filesystem.remove_tree(path)
    else:
        filesystem.unlink(path)


def _owner(folder: str) -> Owner | None:
    try:
        return msgspec.json.decode(disk.read_small(f"{folder}/{_OWNER}", _MAX_OWNER), type=Owner)
    except (OSError, *MALFORMED):
        return None  # nobody knows whose it is: time ends it


def _has_ended(folder: str, owner: Owner | None, now: float, ttl: float) -> bool:
    if owner is None and not _is_used(folder):
        ttl = min(ttl, _NAMED)  # its process was killed before it could say who it is
    gone = is_gone(owner) if owner else None
    return now - _renewed(folder) > ttl if gone is None else gone


def _is_used(folder: str) -> bool:
    """True unless a lease keeps nothing for certain."""
    try:
        return any(not name.endswith(".tmp") for name in os.listdir(folder))
    except OSError:
        return True


def _renewed(folder: str) -> float:
    """When something was last written to a lease, as far as it can be looked into."""
    times = [0.0]
    for path in (folder, *(f"{at}/{name}" for at, _, names in os.walk(folder) for name in names)):
        with suppress(FileNotFoundError):  # released meanwhile
            times.append(os.stat(path).st_mtime)
    return max(times)


def _marks(folder: str) -> Iterator[str]:
    for registry in disk.names(folder):
        yield from (f"{registry}/{name}" for name in disk.names(f"{folder}/{registry}"))


def _digests(folder: str) -> frozenset[str]:
    try:
        data = disk.read_small(f"{folder}/{_DIGESTS}", _MAX_DIGESTS)
    except FileNotFoundError:
        return frozenset()
    return frozenset(data.decode("ascii", "replace").split())


def _words(owner: Owner | None) -> str:
    return in_words(owner) if owner else "a process that cannot be named"
