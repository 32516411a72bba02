"""Views: the files of a dataset under the names people know, linked, not copied without need.

Inside the cache a view is a folder that appears with one rename. In a folder of the user, files
appear one by one, each with one rename, and nothing of the user's is replaced unless asked for.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import xxhash

from dscache import filesystem
from dscache.errors import StorageError, UsageError
from dscache.settings import LINK_MODES
from dscache.store import File

_INSIDE = ("hardlink", "symlink", "copy")
_OUTSIDE = LINK_MODES[1:]
#: A hit looks at the sizes of no more files than this.
LOOKED_AT = 64
_READ = 1 << 20
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Target:
    """A folder of the user for the files of a call.

    Attributes:
        mode: one of `settings.LINK_MODES`; "auto" takes the first that works of reflink, hard
            link, symbolic link and copy.
        force: replace files with other content.
        separate: each dataset gets a folder of its name.
    """

    folder: str
    mode: str = "auto"
    force: bool = False
    separate: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """What `place` did: the weakest link mode that was used, and the bytes that were copied."""

    mode: str
    copied: int = 0


def is_whole(folder: str, files: Sequence[File]) -> bool:
    """A quick look whether the files stand in the folder with their sizes (the first 64)."""
    try:
        for file in files[:LOOKED_AT]:
            if os.stat(f"{folder}/{file.path}").st_size != file.size:
                return False
        if not files:
            os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def build(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    """Make the view in the cache, or mend the one that is there.

    Args:
        folder: where the view stands.
        files: what it holds; files of an existing view that are not among them stay.
        blob: the path of a blob, by its sha256.

    Raises:
        StorageError: the disk does not take it.
    """
    with filesystem.storage_errors(f"the view {folder} cannot be made"):
        if os.path.isdir(folder):
            _mend(folder, files, blob)
        else:
            _publish(folder, files, blob)


def place(target: Target, folder: str, files: Sequence[File], view: str) -> Placed:
    """Put the files of a view into `folder`, below or equal to the target's.

    Raises:
        UsageError: there is no such link mode.
        StorageError: files with other content stand there (nothing was changed), the mode cannot
            be had, or the disk does not take it.
    """
    if target.mode not in LINK_MODES:
        raise UsageError(f"link mode {target.mode!r} is none of {', '.join(LINK_MODES)}")
    wanted = [file for file in files if not _is_same(f"{folder}/{file.path}", file, view)]
    blocked = sorted({path for file in wanted if (path := _blocked(folder, file.path))})
    if blocked and not target.force:
        raise _in_the_way(folder, blocked)
    modes = _OUTSIDE if target.mode == "auto" else (target.mode,)
    used, copied = 0, 0
    with filesystem.storage_errors(f"files cannot be put into {folder}"):
        filesystem.make_folder(folder)
        for path in blocked:
            _clear(f"{folder}/{path}")
        for file in wanted:
            source, there = f"{view}/{file.path}", f"{folder}/{file.path}"
            filesystem.make_folder(os.path.dirname(there))
            number = _link(source, there, modes, source)
            used = max(used, number)
            copied += file.size if modes[number] == "copy" else 0
    return Placed(modes[used], copied)


def _blocked(folder: str, path: str) -> str:
    """The first part of `path` at which something of the user's stands in the way, or ""."""
    for parent in _parents(path):
        there = f"{folder}/{parent}"
        if os.path.lexists(there) and not os.path.isdir(there):
            return parent
    return path if os.path.lexists(f"{folder}/{path}") else ""


def _clear(path: str) -> None:
    """Make room where a folder stands; a file is replaced by the rename itself."""
    if os.path.isdir(path) and not os.path.islink(path):
        raise StorageError(f"{path} is a folder; it is not replaced by a file", path=path)
    if os.path.lexists(path) and not os.path.isfile(path):
        filesystem.unlink(path)


def _in_the_way(folder: str, blocked: Sequence[str]) -> StorageError:
    listed = "".join(f"\n  {path}" for path in blocked[:_LISTED])
    more = f"\n  and {len(blocked) - _LISTED} more" if len(blocked) > _LISTED else ""
    return StorageError(
        f"{folder} holds other files of these names; nothing was changed:{listed}{more}",
        hint="move them away, or replace them with --force (force=True)",
        files=list(blocked),
    )


def _publish(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    temporary = f"{os.path.dirname(folder)}/.{secrets.token_hex(8)}.tmp"
    filesystem.make_folder(temporary)
    try:
        _fill(temporary, files, blob, depth_of=folder)
        try:
            filesystem.rename(temporary, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
            _mend(folder, files, blob)  # another process was faster
            filesystem.remove_tree(temporary)
    except BaseException:
        filesystem.remove_tree(temporary)
        raise


def _fill(folder: str, files: Sequence[File], blob: Callable[[str], str], depth_of: str) -> None:
    made = {""}
    for file in files:
        parent = file.path.rpartition("/")[0]
        if parent not in made:
            filesystem.make_folder(f"{folder}/{parent}")
            made.add(parent)
        source = blob(file.sha256)
        pointing = _relative(source, f"{depth_of}/{file.path}")
        _link_new(source, f"{folder}/{file.path}", _INSIDE, pointing)


def _mend(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    for file in files:
        there, source = f"{folder}/{file.path}", blob(file.sha256)
        if _is_link_to(there, source, file.size):
            continue
        filesystem.make_folder(os.path.dirname(there))
        _link(source, there, _INSIDE, _relative(source, there))


def _is_link_to(path: str, source: str, size: int) -> bool:
    """True if the file is the blob itself. A copy is one that had to be, so it counts by size."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    if os.path.samestat(found, os.stat(source)):
        return True
    return found.st_size == size and _hash(path) == _hash(source)


def _link(source: str, target: str, modes: Sequence[str], pointing: str) -> int:
    """Make `target` with one rename, by the first of `modes` that works; return its number."""
    temporary = f"{os.path.dirname(target)}/.{secrets.token_hex(8)}.tmp"
    number = _link_new(source, temporary, modes, pointing)
    try:
        filesystem.rename(temporary, target)
    except BaseException:
        filesystem.unlink(temporary)
        raise
    if os.path.lexists(temporary):  # renaming one hard link over another does nothing (POSIX)
        filesystem.unlink(temporary)
    return number


def _link_new(source: str, target: str, modes: Sequence[str], pointing: str) -> int:
    for number, mode in enumerate(modes):
        try:
            if mode == "hardlink":
                filesystem.link(source, target)
            elif mode == "symlink":
                filesystem.symlink(pointing, target)
            elif mode == "reflink":
                filesystem.clone(source, target)
            else:
                filesystem.copy(source, target)
        except OSError as error:
            if error.errno not in filesystem.UNSUPPORTED:
                raise
            if number == len(modes) - 1:
                raise StorageError(
                    f"link mode {mode!r} cannot be had for {target}: {os.strerror(error.errno)}",
                    hint="use another --link mode; auto takes the best that works",
                    mode=mode,
                ) from error
        else:
            return number
    raise ValueError("at least one link mode is needed")


def _relative(source: str, target: str) -> str:
    """What a symbolic link at `target` holds, both being below the cache root."""
    return os.path.relpath(source, os.path.dirname(target))


def _is_same(path: str, file: File, view: str) -> bool:
    """True if that content stands at `path` already, as itself or as a link to the view."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
        return False
    return os.path.samestat(found, os.stat(f"{view}/{file.path}")) or _hash(path) == file.xxh3_128


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def _hash(path: str) -> str:
    hasher = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_READ):
            hasher.update(chunk)
    return hasher.hexdigest()
