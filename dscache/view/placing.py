"""Placing: the files of a view in a folder of the user, where nothing of theirs is lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import msgspec

from dscache import filesystem
from dscache.errors import StorageError, UsageError
from dscache.settings import LINK_MODES
from dscache.store import File
from dscache.view.links import link, parents, stands_as

_MODES = LINK_MODES[1:]
_LISTED = 20


class Target(msgspec.Struct, frozen=True):
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


class Placed(msgspec.Struct, frozen=True):
    """What `place` did: the weakest link mode that was used, and the bytes that were copied."""

    mode: str
    copied: int = 0


def place(target: Target, folder: str, files: Sequence[File], view: str) -> Placed:
    """Put the files of a view into `folder`, below or equal to the target's.

    What has the right content already stays, but for a link to the cache where another mode than
    that is asked for by name.

    Raises:
        UsageError: there is no such link mode, or the folder is the view itself.
        StorageError: files with other content stand there (nothing was changed), the mode cannot
            be had, or the disk does not take it.
    """
    if target.mode not in LINK_MODES:
        raise UsageError(f"link mode {target.mode!r} is none of {', '.join(LINK_MODES)}")
    if os.path.realpath(folder) == os.path.realpath(view):
        raise UsageError(f"{folder} is where the cache keeps these files; choose another folder")
    with filesystem.storage_errors(f"files cannot be put into {folder}"):
        standing = {f: stands_as(f"{folder}/{f.path}", f, f"{view}/{f.path}") for f in files}
        _make_room(folder, [file for file, mode in standing.items() if not mode], target.force)
        wanted = [file for file, mode in standing.items() if not _suits(mode, target.mode)]
        used = _place(folder, wanted, view, target.mode)
    modes = used.values() if used else standing.values()
    weakest = max(modes, key=_MODES.index, default=_MODES[0])
    return Placed(weakest, sum(file.size for file, mode in used.items() if mode == "copy"))


def _place(folder: str, files: Sequence[File], view: str, mode: str) -> dict[File, str]:
    """Link the files one by one; return the mode that was used for each."""
    modes: Sequence[str] = _MODES if mode == "auto" else (mode,)
    used: dict[File, str] = {}
    made: set[str] = set()
    filesystem.make_folder(folder)
    for file in files:
        source, there = f"{view}/{file.path}", f"{folder}/{file.path}"
        parent = os.path.dirname(there)
        if parent not in made:
            filesystem.make_folder(parent)
            made.add(parent)
        # A symbolic link shows the view, with its real names; a hard link must be to the bytes.
        real = os.path.realpath(source) if os.path.islink(source) else source
        try:
            used[file] = link(real, there, modes, partial(str, source))
        except OSError as error:
            if mode in ("auto", "copy") or error.errno not in filesystem.UNSUPPORTED:
                raise
            raise _cannot(mode, there, error) from error
        if "reflink" in modes[:-1] and used[file] != "reflink":
            modes = modes[1:]  # nor will it work for the others
    return used


def _cannot(mode: str, path: str, error: OSError) -> StorageError:
    return StorageError(
        f"link mode {mode!r} cannot be had for {path}: {os.strerror(error.errno or 0)}",
        hint="use another --link mode; auto takes the best that works",
        mode=mode,
    )


def _suits(standing: str, mode: str) -> bool:
    """True if what stands there may stay. A copy is the user's own and always does."""
    return standing in ("copy", mode) or (mode == "auto" and standing != "")


def _make_room(folder: str, files: Sequence[File], force: bool) -> None:
    """Make sure that nothing of the user's stands in the way, or with `force` take it away."""
    blocked = sorted({path for file in files if (path := _blocked(folder, file.path))})
    if blocked and not force:
        raise _in_the_way(folder, blocked, "or replace them with --force (force=True)")
    folders = [path for path in blocked if _is_folder(f"{folder}/{path}")]
    if folders:
        raise _in_the_way(folder, folders, "folders are never replaced")
    replaced = {file.path for file in files}  # by the rename itself
    for path in blocked:
        if path not in replaced:
            filesystem.unlink(f"{folder}/{path}")


def _blocked(folder: str, path: str) -> str:
    """The first part of `path` at which something of the user's stands in the way, or ""."""
    for parent in parents(path):
        there = f"{folder}/{parent}"
        if os.path.lexists(there) and not os.path.isdir(there):
            return parent
    return path if os.path.lexists(f"{folder}/{path}") else ""


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _in_the_way(folder: str, blocked: Sequence[str], advice: str) -> StorageError:
    listed = "".join(f"\n  {path}" for path in blocked[:_LISTED])
    more = f"\n  and {len(blocked) - _LISTED} more" if len(blocked) > _LISTED else ""
    return StorageError(
        f"{folder} holds other files of these names; nothing was changed:{listed}{more}",
        hint=f"move them away; {advice}",
        files=list(blocked),
    )
