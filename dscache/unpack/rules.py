"""What an archive may hold: the rules for members, told from their headers alone. Pure.

They are those of tarfile's "data" filter (PEP 706) for every format, and limits on what unpacking
may cost. What depends on the filesystem, names that it takes for the same, is seen by the draft.

1. No name leads out of the tree: no `..`, no drive; a leading `/` is stripped. None is deeper than
   what every program can walk, and remove again.
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
from collections.abc import Sequence
from itertools import takewhile

import msgspec

from dscache.errors import UnsafeError
from dscache.model import is_device
from dscache.quantities import show_size

#: Up to so many bytes no ratio is suspicious: a megabyte of zeros takes 45 bytes as bzip2.
_FREE = 1 << 20
#: Folders in each other; Python 3.11 needs a stack frame and a descriptor for each to remove them.
_DEEPEST = 100
_LONGEST_SHOWN = 300
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SLASH = re.compile(r"[\\/]")
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
        by_ratio = max(_FREE, limits.max_ratio * size) if limits.max_ratio else 0
        self._most = _least(limits.max_bytes, by_ratio)
        self._folder = ""
        self._members = 0
        self._bytes = 0

    def enter(self, folder: str) -> None:
        """From now on members belong to an archive that is unpacked into that folder."""
        self._folder = folder

    def name(self, written: str) -> str:
        """The path of a member in the tree; that of the archive's folder for this itself.

        Raises:
            UnsafeError: the name leads elsewhere, or there are too many members.
        """
        self._members += 1
        if 0 < self._limits.max_members < self._members:
            raise UnsafeError(
                f"member {_shown(written)} is one more than the {self._limits.max_members} that "
                "are allowed",
                hint=_RAISE.format("max_members"),
                member=written,
            )
        return self._placed(path_of(written))

    def twin(self, path: str, written: str) -> str:
        """The earlier member that the hard link at `path` names.

        Raises:
            UnsafeError: it leads out of the tree.
        """
        try:
            return self._placed(path_of(written))
        except UnsafeError as error:
            raise _outward(path, written) from error

    def check_named(self, path: str, written: str) -> None:
        """Make sure that what is no folder has a name of its own.

        Raises:
            UnsafeError: it has that of the archive's folder.
        """
        if path == self._folder:
            raise UnsafeError(
                f"member {_shown(written)} has the name of the folder for all of them",
                member=written,
            )

    def bytes(self, path: str, count: int) -> None:
        """Count bytes that a member takes, before they are written.

        Raises:
            UnsafeError: they are too many.
        """
        self._bytes += count
        if 0 < self._most < self._bytes:
            is_ratio = not self._limits.max_bytes or self._most < self._limits.max_bytes
            key = "max_ratio" if is_ratio else "max_bytes"
            why = f"{self._limits.max_ratio} times the archive" if is_ratio else "the limit"
            raise UnsafeError(
                f"member {_shown(path)} would make more than {show_size(self._most)}, {why}",
                hint=_RAISE.format(key),
                member=path,
                limit=self._most,
            )

    def _placed(self, path: str) -> str:
        return path_of(f"{self._folder}/{path}") if self._folder else path


def path_of(written: str) -> str:
    """The path in the tree for the name of a member; empty for the tree itself.

    Raises:
        UnsafeError: it leads elsewhere.
    """
    parts = [part for part in written.split("/") if part and part != "."]
    if problem := _problem(parts):
        raise UnsafeError(f"member {_shown(written)} {problem}", member=written)
    return "/".join(parts)


def link_target(path: str, written: str) -> str:
    """What the symbolic link at `path` may hold, normalised.

    Raises:
        UnsafeError: it leads out of the tree.
    """
    target = posixpath.normpath(written)
    parts = target.split("/")
    ups = len(list(takewhile("..".__eq__, parts)))
    is_absolute = written.startswith(("/", "\\"))
    if is_absolute or not written or ups > path.count("/") or _problem(parts[ups:]):
        raise _outward(path, written)
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
    return UnsafeError(
        f"member {_shown(path)} is a device, a pipe or another special file", member=path
    )


def _problem(parts: Sequence[str]) -> str:
    """What is wrong with a path of these parts, if anything is."""
    path = "/".join(parts)
    if ".." in (_SLASH.split(path) if "\\" in path else parts):
        return "leads out of its folder"
    if _DRIVE.match(path):
        return "names a drive"
    if "\0" in path:
        return "holds a NUL character"
    if len(parts) > _DEEPEST:
        return f"is in more than {_DEEPEST} folders"
    if _WINDOWS and any(map(_is_bad_on_windows, parts)):
        return "cannot be a file on Windows"
    return ""


def _is_bad_on_windows(part: str) -> bool:
    # Dots and spaces at the end are dropped there: "... " is a way to write "..".
    return ":" in part or "\\" in part or part[-1:] in (".", " ") or is_device(part)


def _outward(path: str, written: str) -> UnsafeError:
    return UnsafeError(
        f"member {_shown(path)} is a link to {_shown(written)}, which leads out of its folder",
        member=path,
    )


def _shown(name: str) -> str:
    return repr(name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…")


def _least(*limits: int) -> int:
    return min((each for each in limits if each), default=0)
