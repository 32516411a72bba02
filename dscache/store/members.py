"""The list of a tree's members: path, mode, size and xxh3_128 of each, written while they are.

A row is three texts, each ended by a NUL byte, which no file name can hold: `mode size xxh3_128`,
the path, and what a symbolic link holds. Names that are no UTF-8 come back as they were. The list
is read in pieces, since a tree may have millions of members.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

import msgspec

#: What a member may be, as the bits of `st_mode`; links have no permissions of their own.
FILE, PROGRAM, FOLDER, LINK = 0o100444, 0o100555, 0o040777, 0o120777

_READ = 1 << 20


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


def _parsed(facts: bytes, path: bytes, target: bytes) -> Member:
    mode, size, xxh3_128 = facts.decode("ascii").split(" ")
    return Member(
        path.decode("utf-8", "surrogateescape"),
        int(mode, 8),
        int(size),
        xxh3_128,
        target.decode("utf-8", "surrogateescape"),
    )
