"""What the disk holds and says: small files, room, and the system's errors in our words.

It only looks; what changes the disk is in `filesystem`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

from dscache.errors import DscacheError, StorageError

Parsed = TypeVar("Parsed")

#: What systems say where no more can be written.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

# Bytes from the beginning of a page at which copying is fast, and that keep to a line of the cache.
_AWAY = 48
_NANOSECONDS = 1_000_000_000
# A file changed this recently may change again within one tick of its timestamp.
_RACY = _NANOSECONDS // 20


def read_small(path: str, limit: int) -> bytes:
    """The whole content of a file of at most `limit` bytes.

    Raises:
        StorageError: the file is longer.
    """
    with open(path, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise StorageError(f"{path} is longer than {limit} bytes", path=path)
        return file.read()


def buffer(size: int) -> memoryview:
    """Room for so many bytes, to read files into.

    A large bytearray begins 16 bytes after a page does; what the system copies from the beginning
    of another page to there comes at a fifth of the speed (4K aliasing): 1.6 instead of 8 GB/s.
    """
    return memoryview(bytearray(size + _AWAY))[_AWAY:]


def parsed(path: str, parse: Callable[[str], Parsed]) -> Parsed | None:
    """What `parse(path)` makes of the file, or None if there is none.

    The result is remembered as long as the file's identity, size and time stay the same, so that a
    process pays one stat for a file it has read before. `parse` must be a plain function.
    """
    try:
        found = os.stat(path)
        if abs(time.time_ns() - found.st_mtime_ns) < _RACY:
            return parse(path)
        known: Parsed = _parsed(path, parse, found.st_mtime_ns, found.st_size, found.st_ino)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return known


@lru_cache(maxsize=512)
def _parsed(path: str, parse: Callable[[str], Any], *_identity: int) -> Any:
    return parse(path)


def names(folder: str) -> list[str]:
    """The names in a folder, sorted; none where there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def names_below(folder: str) -> Iterator[str]:
    """The names two levels down, each with that of its folder before it: how hashes are stored."""
    for shard in names(folder):
        try:  # unsorted, since there may be very many
            below = os.listdir(f"{folder}/{shard}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield from (shard + name for name in below)


def allocated(path: str) -> int:
    """Bytes of the disk that a file takes where its system tells, else its length."""
    return taken(os.stat(path))


def taken(found: os.stat_result) -> int:
    """As `allocated`, of a file that was looked at already."""
    return found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size


def free_space(path: str) -> int:
    """Bytes that this user can still write on the filesystem of `path`."""
    import shutil  # late: a hit writes nothing

    return shutil.disk_usage(path).free


class storage_errors:  # noqa: N801 - reads as a verb; a generator would cost each file 2 µs more
    """Translate what the operating system says of the disk into a `StorageError`, once."""

    def __init__(self, what: str, **facts: str | int) -> None:
        self._what, self._facts = what, facts

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        # Some of our own errors are OSErrors too.
        if isinstance(error, OSError) and not isinstance(error, DscacheError):
            raise storage_error(self._what, error, **self._facts) from error


def storage_error(what: str, error: OSError, **facts: str | int) -> StorageError:
    """The `StorageError` for one failure of the operating system, with what to do."""
    hints = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again: "
        "what has arrived is kept",
        errno.EDQUOT: "the disk quota is used up; what has arrived is kept",
        errno.EROFS: "the file system is read-only: set DSCACHE_DIR or --cache-dir to another",
    }
    reason = os.strerror(error.errno) if error.errno else str(error)
    path = error.filename2 or error.filename  # where two are named, the second is the target
    where = f" ({path})" if path else ""
    is_closed = error.errno in (errno.EACCES, errno.EPERM)
    hint = _closed(path) if is_closed else hints.get(error.errno or 0, "")
    return StorageError(f"{what}: {reason}{where}", hint=hint, errno=error.errno, **facts)


def _closed(path: object) -> str:
    """What to do about a place that may not be written to."""
    advice = "set DSCACHE_DIR or --cache-dir to a folder that you may write to"
    owner = _closed_by(path) if isinstance(path, str) and hasattr(os, "geteuid") else None
    if owner is None:
        return advice
    return (
        f"it belongs to user {owner}, and is closed to you; in a cache of a group everybody sets "
        f"`umask 002`, and `dscache doctor` says how to open what was made without; or {advice}"
    )


def _closed_by(path: str) -> int | None:
    """The other user whose folder, or file, refuses to be written to."""
    for each in (os.path.dirname(path), path):
        try:
            owner = os.stat(each).st_uid
        except OSError:
            continue
        if owner != os.geteuid() and not os.access(each, os.W_OK):
            return owner
    return None
