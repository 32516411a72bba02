"""The list of a tree's members: path, mode, size and xxh3_128 of each, written while they are.

A row is three texts, each ended by a NUL byte, which no file name can hold: `mode size xxh3_128`,
the path, and what a symbolic link holds. Names that are no UTF-8 come back as they were. The list
is read in pieces, since a tree may have millions of members.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from threading import Lock

import msgspec

from dscache import filesystem
from dscache.digest import fast_sum_of

#: What a member may be, as the bits of `st_mode`; links have no permissions of their own.
FILE, PROGRAM, FOLDER, LINK = 0o100444, 0o100555, 0o040777, 0o120777

_READ = 1 << 20
#: Rows that are written together.
_ROWS = 1000


class Member(msgspec.Struct, frozen=True, gc=False):
    """One entry of a tree.

    Attributes:
        path: relative to the tree, '/' between parts.
        mode: FILE, PROGRAM, FOLDER or LINK.
        size: bytes; 0 where it is no file.
        xxh3_128: in hex; empty where it is no file.
        target: what a link holds; it leads to another place in the tree.
    """

    path: str
    mode: int
    size: int = 0
    xxh3_128: str = ""
    target: str = ""

    @property
    def is_file(self) -> bool:
        """True for a file, which has bytes."""
        return stat.S_ISREG(self.mode)

    def row(self) -> bytes:
        """The member as it stands in a list."""
        facts = f"{self.mode:o} {self.size} {self.xxh3_128}"
        return f"{facts}\0{self.path}\0{self.target}\0".encode("utf-8", "surrogateescape")


def read(path: str) -> Iterator[Member]:
    """The members of a list.

    Raises:
        ValueError: it is damaged.
    """
    with open(path, "rb", buffering=0) as file:
        rest = b""
        while chunk := file.read(_READ):
            *texts, rest = (rest + chunk).split(b"\0")
            whole = len(texts) // 3 * 3
            for at in range(0, whole, 3):
                yield _parsed(*texts[at : at + 3])
            rest = b"\0".join([*texts[whole:], rest])
    if rest:
        raise ValueError(f"{path} ends in the middle of a row")


class Listed(msgspec.Struct, frozen=True, gc=False):
    """What is in a list.

    Attributes:
        files: how many members are files.
        bytes: what these hold.
        xxh3_128: of the list itself, in hex.
    """

    files: int
    bytes: int
    xxh3_128: str


class Listing:
    """A list that is being written, by several threads if need be."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = filesystem.create(path)
        self._lock = Lock()
        self._rows: list[bytes] = []
        self._size = 0
        self._files = 0
        self._bytes = 0
        self._removed: set[str] = set()

    def add(self, member: Member) -> None:
        """Take the next member."""
        row, is_file = member.row(), member.is_file
        with self._lock:
            self._files += is_file
            self._bytes += member.size
            self._rows.append(row)
            if len(self._rows) >= _ROWS:
                self._flush()

    def remove(self, member: Member) -> None:
        """Leave out a file that was added."""
        self._files -= 1
        self._bytes -= member.size
        self._removed.add(member.path)

    def members(self) -> Iterator[Member]:
        """Those that were added so far."""
        with self._lock:
            self._flush()
        return (each for each in read(self._path) if each.path not in self._removed)

    def close(self) -> Listed:
        """Write the list to its end; what is in it."""
        members = self.members()
        if self._removed:
            with filesystem.replacing(self._path) as fd:
                size = 0
                for each in members:
                    size += filesystem.write(fd, (each.row(),), size)
        self.discard()
        return Listed(self._files, self._bytes, fast_sum_of(self._path))

    def discard(self) -> None:
        """Let go of the file; nothing can be added any more."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _flush(self) -> None:
        rows, self._rows = b"".join(self._rows), []
        self._size += filesystem.write(self._fd, (rows,), self._size)


def _parsed(facts: bytes, path: bytes, target: bytes) -> Member:
    mode, size, xxh3_128 = facts.decode("ascii").split(" ")
    return Member(
        path.decode("utf-8", "surrogateescape"),
        int(mode, 8),
        int(size),
        xxh3_128,
        target.decode("utf-8", "surrogateescape"),
    )
