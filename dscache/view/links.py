"""Links: how one item comes to its name, by the best way that the filesystem grants.

Knows no dataset: an item, a target and the ways in order of preference.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from string import ascii_letters

from dscache import copying, filesystem
from dscache.digest import fast_sum_of
from dscache.view.items import Item

_OTHER_CASE = str.maketrans(ascii_letters, ascii_letters.swapcase())


def stands_as(path: str, item: Item, sum_of: Callable[[str], str] | None = None) -> str:
    """How the right content stands at `path` already, "" if it does not.

    For a file it is a link mode, for a folder or a link its kind. `sum_of` gives its xxh3_128.
    """
    if item.kind == "folder":
        return "folder" if os.path.isdir(path) else ""
    if item.kind == "link":
        return "link" if _leads_to(path) == item.target else ""
    try:
        entry = os.lstat(path)
        linked = stat.S_ISLNK(entry.st_mode)
        found = os.stat(path) if linked else entry
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode) or found.st_size != item.size:
        return ""
    if _is_file_of(item, found):
        return "symlink" if linked else "hardlink"
    try:
        return "copy" if (sum_of or fast_sum_of)(path) == item.xxh3_128 else ""
    except OSError:  # what cannot be read is not right
        return ""


class Ways:
    """The link modes to be tried for each file, the best first, and why some were refused.

    Attributes:
        refused: for each mode that could not be had, what the system first said to it.
    """

    def __init__(self, modes: Sequence[str], pointing: Callable[[Item], str]) -> None:
        """`pointing` says what a symbolic link to an item's file holds, if it comes to that."""
        self.refused: dict[str, str] = {}
        *self._better, self._last = modes
        self._pointing = pointing

    def make(self, item: Item, target: str) -> str:
        """Make `target`, a file or link, in one step; return the mode, or "link" for a link.

        Raises:
            FileExistsError: something stands there.
        """
        if item.kind == "link":
            filesystem.symlink(item.target, target)
            return "link"
        for mode in self._better:
            try:
                self._make(mode, item, target)
            except OSError as error:
                if error.errno not in copying.UNSUPPORTED:
                    raise
                self._note(mode, error)
            else:
                return mode
        self._make(self._last, item, target)
        return self._last

    def replace(self, item: Item, target: str) -> str:
        """As `make`, and what stands there gives way with one rename."""
        temporary = filesystem.beside(target)
        mode = self.make(item, temporary)
        try:
            filesystem.rename(temporary, target)
        except BaseException:
            filesystem.drop(temporary)
            raise
        if os.path.lexists(temporary):  # renaming one hard link over another does nothing (POSIX)
            filesystem.unlink(temporary)
        return mode

    def _note(self, mode: str, error: OSError) -> None:
        self.refused.setdefault(mode, os.strerror(error.errno or 0))
        if mode == "reflink":  # each try costs a file, and it will not work for the others
            self._better = [each for each in self._better if each != mode]

    def _make(self, mode: str, item: Item, target: str) -> None:
        if mode == "hardlink":
            filesystem.link(item.source, target)
        elif mode == "symlink":
            filesystem.symlink(self._pointing(item), target)
        else:
            program = bool(os.stat(item.source).st_mode & stat.S_IXUSR)
            if mode == "reflink":
                copying.clone(item.source, target, program=program)
            else:
                final = mode == "sealed copy"
                copying.copy(item.source, target, final=final, program=program)


def shown_otherwise(folder: str, path: str) -> bool:
    """True if what stands at `path` below `folder` has another name: this filesystem ignores case.

    Told by the names that it lists, since some have an inode number for each spelling (FUSE).
    """
    if not os.path.lexists(f"{folder}/{path.translate(_OTHER_CASE)}"):
        return False
    for part in path.split("/"):
        if part not in os.listdir(folder):
            return True
        folder = f"{folder}/{part}"
    return False


def _is_file_of(item: Item, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(found, os.stat(item.source))
    except FileNotFoundError:
        return False  # the store has lost it; what stands there may be right all the same


def _leads_to(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
