"""Links: how one file comes to its name, by the best way that the filesystem grants.

Knows no dataset: a source, a target and the ways in order of preference.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence

from dscache import filesystem
from dscache.digest import fast_sum_of
from dscache.store import File


def stands_as(path: str, file: File, source: str) -> str:
    """How the right content stands at `path` already, as a link mode; "" if it does not."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
        return ""
    if os.path.samestat(found, os.stat(source)):
        return "symlink" if os.path.islink(path) else "hardlink"
    return "copy" if fast_sum_of(path) == file.xxh3_128 else ""


def link(source: str, target: str, modes: Sequence[str], pointing: Callable[[], str]) -> str:
    """Make `target` with one rename, by the first of `modes` that works; return which."""
    temporary = beside(target)
    mode = link_new(source, temporary, modes, pointing)
    try:
        filesystem.rename(temporary, target)
    except BaseException:
        filesystem.drop(temporary)
        raise
    if os.path.lexists(temporary):  # renaming one hard link over another does nothing (POSIX)
        filesystem.unlink(temporary)
    return mode


def link_new(source: str, target: str, modes: Sequence[str], pointing: Callable[[], str]) -> str:
    """Make `target`, which does not exist, by the first of `modes` that works; return which.

    `pointing` says what a symbolic link is to hold, if it comes to that.
    """
    *better, last = modes
    for mode in better:
        try:
            _make(mode, source, target, pointing)
        except OSError as error:
            if error.errno not in filesystem.UNSUPPORTED:
                raise
        else:
            return mode
    _make(last, source, target, pointing)
    return last


def beside(path: str) -> str:
    """A new hidden name in the same folder."""
    return f"{os.path.dirname(path)}/.dscache-{os.urandom(8).hex()}.tmp"


def parents(path: str) -> Iterator[str]:
    """The folders on the way to a relative path, the outermost first."""
    parts = path.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def _make(mode: str, source: str, target: str, pointing: Callable[[], str]) -> None:
    if mode == "hardlink":
        filesystem.link(source, target)
    elif mode == "symlink":
        filesystem.symlink(pointing(), target)
    elif mode == "reflink":
        filesystem.clone(source, target)
    else:
        filesystem.copy(source, target, final=mode == "sealed copy")
