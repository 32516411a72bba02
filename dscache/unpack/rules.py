"""What an archive may hold: the rules for members, told from their headers alone. Pure.

They are those of tarfile's "data" filter (PEP 706) for every format, and limits on what unpacking
may cost. What depends on the filesystem, names that it takes for the same, is seen by the draft.

1. No name leads out of the tree: no `..`, no drive; a leading `/` is stripped.
2. No link leads out of it, whatever other links it passes. Its target is normalised, so that `..`
   stands only at its start; from there every step goes down, through links that keep this rule.
3. Only files, folders and links; neither devices nor setuid bits.
4. No more members, bytes, and bytes for each byte of the archive than the limits say.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from itertools import takewhile

import msgspec

from dscache.errors import UnsafeError
from dscache.model import is_device
from dscache.quantities import show_size

#: Up to so many bytes no ratio is suspicious: a megabyte of zeros takes 45 bytes as bzip2.
_FREE = 1 << 20
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_WINDOWS = os.name == "nt"
_RAISE = "if you trust it, raise `{}` in the [unpack] table of your configuration"


class Limits(msgspec.Struct, frozen=True):
    """What unpacking one archive may cost; 0 means no limit.

    Attributes:
        max_members: files, folders and links.
        max_bytes: of all files together.
        max_ratio: of them to the bytes of the archive.
    """

    max_members: int
    max_bytes: int
    max_ratio: int


class Rules:
    """The rules for one archive of `size` bytes, whose members pass one after the other."""

    def __init__(self, limits: Limits, size: int) -> None:
        self._limits = limits
        self._most = _least(limits.max_bytes, max(_FREE, limits.max_ratio * size))
        self._members = 0
        self._bytes = 0

    def name(self, written: str) -> str:
        """The path of a member in the tree; empty for the tree itself.

        Raises:
            UnsafeError: the name leads elsewhere, or there are too many members.
        """
        self._members += 1
        if 0 < self._limits.max_members < self._members:
            raise UnsafeError(
                f"member {written!r} is one more than the {self._limits.max_members} that are "
                "allowed",
                hint=_RAISE.format("max_members"),
                member=written,
            )
        return path_of(written)

    def bytes(self, path: str, count: int) -> None:
        """Count bytes of a member before they are written.

        Raises:
            UnsafeError: they are too many.
        """
        self._bytes += count
        if 0 < self._most < self._bytes:
            is_ratio = not self._limits.max_bytes or self._most < self._limits.max_bytes
            key = "max_ratio" if is_ratio else "max_bytes"
            why = f"{self._limits.max_ratio} times the archive" if is_ratio else "the limit"
            raise UnsafeError(
                f"member {path!r} would make more than {show_size(self._most)}, {why}",
                hint=_RAISE.format(key),
                member=path,
                limit=self._most,
            )


def path_of(written: str) -> str:
    """The path in the tree for the name of a member; empty for the tree itself.

    Raises:
        UnsafeError: it leads elsewhere.
    """
    parts = [part for part in written.split("/") if part and part != "."]
    path = "/".join(parts)
    if ".." in re.split(r"[/\\]", path) if "\\" in path else ".." in parts:
        raise UnsafeError(f"member {written!r} leads out of its folder", member=written)
    if _DRIVE.match(path):
        raise UnsafeError(f"member {written!r} names a drive", member=written)
    if "\0" in path:
        raise UnsafeError(f"member {written!r} holds a NUL character", member=written)
    if _WINDOWS and any(":" in part or "\\" in part or is_device(part) for part in parts):
        raise UnsafeError(f"member {written!r} cannot be a file on Windows", member=written)
    return path


def link_target(path: str, written: str) -> str:
    """What the symbolic link at `path` may hold, normalised.

    Raises:
        UnsafeError: it leads out of the tree.
    """
    is_absolute = written.startswith(("/", "\\")) or _DRIVE.match(written) is not None
    target = posixpath.normpath(written)
    ups = len(list(takewhile("..".__eq__, target.split("/"))))
    if is_absolute or not written or "\0" in written or ups > path.count("/"):
        raise UnsafeError(
            f"member {path!r} is a link to {written!r}, which leads out of its folder",
            member=path,
        )
    return target


def check_kind(path: str, mode: int) -> None:
    """Make sure that `st_mode`, where a format gives one, is that of a file, folder or link.

    Raises:
        UnsafeError: it is a device, a pipe or a socket.
    """
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise special(path)


def special(path: str) -> UnsafeError:
    """The error for a member that is no file, folder or link."""
    return UnsafeError(f"member {path!r} is a device, a pipe or another special file", member=path)


def _least(*limits: int) -> int:
    return min((each for each in limits if each), default=0)
