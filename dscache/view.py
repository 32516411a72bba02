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
from functools import partial

from dscache import filesystem
from dscache.digest import fast_sum_of
from dscache.errors import StorageError, UsageError
from dscache.settings import LINK_MODES
from dscache.store import File

#: Ways to a file of a view, the best first. A copy in the cache is read-only, as a link would be.
_INSIDE = ("hardlink", "symlink", "sealed copy")
_OUTSIDE = LINK_MODES[1:]
#: A hit looks at the sizes of no more files than this.
LOOKED_AT = 64
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
    except OSError:
        return False
    return True


def is_sound(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> bool:
    """A thorough look: every file is a link to its blob, or has the right bytes as a copy.

    Raises:
        StorageError: the disk does not let it be looked at.
    """
    with filesystem.storage_errors(f"the view {folder} cannot be read"):
        return all(_standing(f"{folder}/{f.path}", f, blob(f.sha256)) for f in files)


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


def sync(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    """Bring a view whose blobs are synced to the disk: its folders, and copies where it has them.

    Raises:
        StorageError: the disk does not take it.
    """
    with filesystem.storage_errors(f"the view {folder} cannot be synced"):
        for file in files:
            path = f"{folder}/{file.path}"
            if not os.path.samefile(path, blob(file.sha256)):
                filesystem.sync_path(path)
        for parent in sorted({parent for file in files for parent in _parents(file.path)}):
            filesystem.sync_path(f"{folder}/{parent}")
        filesystem.sync_path(folder)
        filesystem.sync_path(os.path.dirname(folder))


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
        standing = {f: _standing(f"{folder}/{f.path}", f, f"{view}/{f.path}") for f in files}
        _make_room(folder, [file for file, mode in standing.items() if not mode], target.force)
        wanted = [file for file, mode in standing.items() if not _suits(mode, target.mode)]
        used = _place(folder, wanted, view, target.mode)
    modes = used.values() if used else standing.values()
    weakest = max(modes, key=_OUTSIDE.index, default=_OUTSIDE[0])
    return Placed(weakest, sum(file.size for file, mode in used.items() if mode == "copy"))


def _place(folder: str, files: Sequence[File], view: str, mode: str) -> dict[File, str]:
    """Link the files one by one; return the mode that was used for each."""
    modes: Sequence[str] = _OUTSIDE if mode == "auto" else (mode,)
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
            used[file] = _link(real, there, modes, partial(str, source))
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


def _standing(path: str, file: File, source: str) -> str:
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
    for parent in _parents(path):
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


def _publish(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    temporary = _beside(folder)
    filesystem.make_folder(temporary)
    try:
        _fill(temporary, files, blob, folder)
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


def _fill(folder: str, files: Sequence[File], blob: Callable[[str], str], final: str) -> None:
    """Link everything into the new folder, which is going to be `final`."""
    made = {""}
    for file in files:
        parent = file.path.rpartition("/")[0]
        if parent not in made:
            filesystem.make_folder(f"{folder}/{parent}")
            made.add(parent)
        source = blob(file.sha256)
        there = f"{final}/{file.path}"
        _link_new(source, f"{folder}/{file.path}", _INSIDE, _pointer(source, there))


def _mend(folder: str, files: Sequence[File], blob: Callable[[str], str]) -> None:
    for file in files:
        there, source = f"{folder}/{file.path}", blob(file.sha256)
        if not _standing(there, file, source):
            filesystem.make_folder(os.path.dirname(there))
            _link(source, there, _INSIDE, _pointer(source, there))


def _link(source: str, target: str, modes: Sequence[str], pointing: Callable[[], str]) -> str:
    """Make `target` with one rename, by the first of `modes` that works; return which."""
    temporary = _beside(target)
    mode = _link_new(source, temporary, modes, pointing)
    try:
        filesystem.rename(temporary, target)
    except BaseException:
        filesystem.drop(temporary)
        raise
    if os.path.lexists(temporary):  # renaming one hard link over another does nothing (POSIX)
        filesystem.unlink(temporary)
    return mode


def _link_new(source: str, target: str, modes: Sequence[str], pointing: Callable[[], str]) -> str:
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


def _make(mode: str, source: str, target: str, pointing: Callable[[], str]) -> None:
    if mode == "hardlink":
        filesystem.link(source, target)
    elif mode == "symlink":
        filesystem.symlink(pointing(), target)
    elif mode == "reflink":
        filesystem.clone(source, target)
    else:
        filesystem.copy(source, target, final=mode == "sealed copy")


def _pointer(source: str, target: str) -> Callable[[], str]:
    """What a symbolic link at `target` holds, both being below the cache root, if it is needed."""

    def relative() -> str:
        # As the kernel sees them: a folder of the cache may itself be a symbolic link.
        folder = os.path.realpath(os.path.dirname(target))
        return os.path.relpath(os.path.realpath(source), folder)

    return relative


def _beside(path: str) -> str:
    return f"{os.path.dirname(path)}/.dscache-{secrets.token_hex(8)}.tmp"


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])
