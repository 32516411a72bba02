"""Where the bytes of a download go: memory for what is small, a part for the rest.

Both compute all hashes on the way, so that no byte is read a second time after it has arrived. A
file of somebody else, who will verify it, is written only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import msgspec

from dscache import disk, filesystem
from dscache.digest import Sums
from dscache.store.parts import Part
from dscache.store.ranges import Ranges
from dscache.transfer.hashing import Trail

if TYPE_CHECKING:
    from dscache.unpack.unpacking import Unpacking

_READ = 1 << 20


class Origin(msgspec.Struct, frozen=True):
    """Where bytes came from: a URL without secrets, and what its source said of the whole file."""

    url: str = ""
    validator: str = ""
    total: int | None = None


class Sink(Protocol):
    """Takes bytes: in any order if it `is_divisible`, else one after the other."""

    is_divisible: bool

    @property
    def size(self) -> int:
        """How many bytes from the start are here without a gap."""

    @property
    def count(self) -> int:
        """How many bytes are here in all."""

    @property
    def allocated(self) -> int:
        """Bytes of the disk that it has already, those that are only reserved included."""

    @property
    def here(self) -> Ranges:
        """Which bytes are here."""

    @property
    def origin(self) -> Origin:
        """Where they came from."""

    def note(self, origin: Origin) -> None:
        """Remember where the bytes come from."""

    def write(self, chunks: list[bytes], offset: int | None = None) -> None:
        """Put bytes into the first gap, or at `offset`."""

    def restart(self) -> None:
        """Forget all bytes and the validator under which they came."""

    def sums(self) -> Sums | None:
        """The hashes of all bytes; None as long as they are being computed."""

    def first_bytes(self, count: int) -> bytes: ...

    def chunks(self) -> Iterator[bytes]:
        """All bytes, a piece at a time."""

    def rewrite(self, chunks: Iterator[bytes]) -> None:
        """Replace the bytes by `chunks`, which may be made from them."""

    def secure(self) -> None:
        """Let what is here survive a power cut, in the background."""

    def keep(self) -> None:
        """Let go, leaving for a later attempt what is worth it."""


class Memory:
    """Holds the bytes of one small file."""

    is_divisible = False

    def __init__(self, algorithms: Iterable[str]) -> None:
        self.origin = Origin()
        self._size = 0
        self._algorithms = tuple(algorithms)
        self._chunks: list[bytes] = []

    @property
    def size(self) -> int:
        return self._size

    @property
    def count(self) -> int:
        return self._size

    @property
    def allocated(self) -> int:
        return 0

    @property
    def here(self) -> Ranges:
        return Ranges([(0, self._size)])

    @property
    def data(self) -> bytes:
        """All bytes so far."""
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def note(self, origin: Origin) -> None:
        self.origin = origin

    def write(self, chunks: list[bytes], offset: int | None = None) -> None:
        if offset not in (None, self._size):
            raise ValueError("small files come in one piece")
        self._chunks += chunks
        self._size += sum(map(len, chunks))

    def restart(self) -> None:
        self._chunks = []
        self._size = 0
        self.origin = Origin()

    def sums(self) -> Sums | None:
        sums = Sums(self._algorithms)
        sums.update(self.data)
        return sums

    def first_bytes(self, count: int) -> bytes:
        return self.data[:count]

    def chunks(self) -> Iterator[bytes]:
        yield self.data

    def rewrite(self, chunks: Iterator[bytes]) -> None:
        made = list(chunks)
        self.restart()
        self.write(made)

    def secure(self) -> None:
        """Nothing: what is small is fetched again."""

    def keep(self) -> None:
        self.restart()


class Trailed:
    """Writes a part, hashes behind it, and unpacks it on the way if it is an archive."""

    is_divisible = True

    def __init__(
        self,
        part: Part,
        algorithms: Iterable[str],
        executor: Executor,
        unpacking: Unpacking | None = None,
    ) -> None:
        self.part = part
        self.unpacking = unpacking
        self._executor = executor
        self._trail = Trail(part.path, algorithms, executor)
        self._followers: list[Trail | Unpacking] = [self._trail]
        if unpacking:
            self._followers.append(unpacking)
        self._grow()
        self._syncing: Future[int] | None = None

    @property
    def size(self) -> int:
        return self.part.size

    @property
    def count(self) -> int:
        return self.part.here.total

    @property
    def allocated(self) -> int:
        return disk.allocated(self.part.path)

    @property
    def here(self) -> Ranges:
        return self.part.here

    @property
    def origin(self) -> Origin:
        journal = self.part.journal
        return Origin(journal.url, journal.validator, journal.total)

    def note(self, origin: Origin) -> None:
        self.part.note(url=origin.url, validator=origin.validator, total=origin.total)
        if self.unpacking and origin.total:
            self.unpacking.expect(origin.total)

    def write(self, chunks: list[bytes], offset: int | None = None) -> None:
        self.part.write(chunks, offset)
        self._grow()

    def restart(self) -> None:
        self._end_sync()
        self._restart_followers()
        self.part.restart()

    def sums(self) -> Sums | None:
        for follower in self._followers:
            follower.complete()
        is_unpacked = self.unpacking is None or self.unpacking.is_done
        return self._trail.sums() if is_unpacked else None

    def first_bytes(self, count: int) -> bytes:
        with open(self.part.path, "rb") as file:
            return file.read(count)

    def chunks(self) -> Iterator[bytes]:
        with open(self.part.path, "rb") as file:
            while chunk := file.read(_READ):
                yield chunk

    def rewrite(self, chunks: Iterator[bytes]) -> None:
        self._end_sync()
        self._restart_followers()
        self.part.rewrite(chunks)
        self._grow()

    def keep(self) -> None:
        for follower in self._followers:
            follower.stop()
        try:
            self._end_sync()
        except OSError:  # the disk has lost bytes, and nobody knows which
            with suppress(OSError):
                self.part.discard()
        else:
            self.part.keep()

    def release(self) -> None:
        """Stop all work on the part, so that it can be published, removed or left."""
        self._trail.stop()
        self._end_sync()
        self.part.close()

    def secure(self) -> None:
        if self._syncing is None:
            self._syncing = self._executor.submit(self.part.sync)
        elif self._syncing.done():
            self._end_sync()

    def _grow(self) -> None:
        for follower in self._followers:
            follower.grow(self.part.size)

    def _restart_followers(self) -> None:
        for follower in self._followers:
            follower.restart()

    def _end_sync(self) -> None:
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            self.part.note_synced(syncing.result())


class Plain:
    """Writes an open file, and hashes nothing: its owner knows what it should be.

    Args:
        fd: an empty file, open for reading and writing; closing it is the owner's part.
        folder: where a second file of that size may be for a moment.
    """

    is_divisible = True

    def __init__(self, fd: int, folder: str) -> None:
        self.here = Ranges()
        self.origin = Origin()
        self._fd = fd
        self._folder = folder

    @property
    def size(self) -> int:
        return self.here.prefix

    @property
    def count(self) -> int:
        return self.here.total

    @property
    def allocated(self) -> int:
        return self.count

    def note(self, origin: Origin) -> None:
        self.origin = origin

    def write(self, chunks: list[bytes], offset: int | None = None) -> None:
        at = self.size if offset is None else offset
        self.here.add(at, at + filesystem.write(self._fd, chunks, at))

    def restart(self) -> None:
        filesystem.truncate(self._fd, 0)
        self.here = Ranges()
        self.origin = Origin()

    def sums(self) -> Sums | None:
        return Sums()

    def first_bytes(self, count: int) -> bytes:
        return _read_at(self._fd, count, 0)

    def chunks(self) -> Iterator[bytes]:
        return _chunks_of(self._fd)

    def rewrite(self, chunks: Iterator[bytes]) -> None:
        with filesystem.unnamed(self._folder) as fd:
            size = 0
            for chunk in chunks:
                size += filesystem.write(fd, [chunk], size)
            self.restart()
            for chunk in _chunks_of(fd):
                self.write([chunk])

    def secure(self) -> None:
        """Nothing: no later attempt will know the file."""

    def keep(self) -> None:
        self.restart()


def _chunks_of(fd: int) -> Iterator[bytes]:
    offset = 0
    while chunk := _read_at(fd, _READ, offset):
        offset += len(chunk)
        yield chunk


def _read_at(fd: int, count: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, count)
