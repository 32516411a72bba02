"""Placing: the files of a view in a folder of the user, where nothing of theirs is lost.

First all that stands there is looked at (`room`), then files appear one by one, each in one step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat

import msgspec

from dscache import copying, disk, filesystem
from dscache.errors import StorageError, UsageError
from dscache.events import Emit, Linked, to_log
from dscache.settings import LINK_MODES
from dscache.view.items import Item
from dscache.view.links import Ways, stands_as
from dscache.view.outline import folders_of
from dscache.view.room import ABSENT, FOUND, IN_THE_WAY, Room, look, twins

_MODES = LINK_MODES[1:]
_LISTED = 20
#: Progress: the clock is looked at every so many files, and something is said so often in seconds.
_FILES_A_LOOK = 500
_SECONDS_A_WORD = 0.1
#: Of fewer files nothing is said at the end.
_MANY = 1_000


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
    """What `place` did.

    Attributes:
        mode: the weakest link mode that was used.
        copied: bytes that were copied.
        why: under "auto", why no better mode was used, as the system says it: "reflink: Operation
            not supported; hardlink: Invalid cross-device link".
    """

    mode: str
    copied: int = 0
    why: str = ""


def place(
    target: Target,
    folder: str,
    items: Iterable[Item],
    view: str,
    *,
    emit: Emit = to_log,
    total: int = 0,
) -> Placed:
    """Put the items of a view into `folder`, below or equal to the target's.

    What has the right content already stays, but where a mode is asked for by name: then a link to
    the cache of another mode gives way, and with `force` a copy. Interrupted and called again, it
    goes on.

    Args:
        target: what the user wants.
        folder: where the items are going to stand.
        items: what the view holds, always in the same order: they are iterated several times.
        view: the folder of the cache that shows them; symbolic links lead there.
        emit: hears of the progress.
        total: number of items, 0 where it is not known.

    Raises:
        UsageError: there is no such link mode, or the folder is the view itself.
        UnsafeError: an item stands below a link.
        StorageError: files with other content stand there (nothing was changed), the mode cannot
            be had, or the disk does not take it.
    """
    if target.mode not in LINK_MODES:
        raise UsageError(f"link mode {target.mode!r} is none of {', '.join(LINK_MODES)}")
    if os.path.realpath(folder) == os.path.realpath(view):
        raise UsageError(f"{folder} is where the cache keeps these files; choose another folder")
    with disk.storage_errors(f"files cannot be put into {folder}"):
        folders = folders_of(items)
        room = look(folder, items, folders)
        _make_room(folder, items, room, target.force)
        _make_folders(folder, folders, room)
        placing = _Placing(target, folder, view)
        found = chain(room.found, repeat(ABSENT))
        for item, code in zip(_told(items, folder, total, emit), found, strict=False):
            if item.kind != "folder":
                placing.take(item, code)
        return placing.done()


class _Placing:
    """Items on their way into the folder, and by which ways they came."""

    def __init__(self, target: Target, folder: str, view: str) -> None:
        self._mode = target.mode
        self._force = target.force
        self._folder = folder
        modes = _MODES if target.mode == "auto" else (target.mode,)
        # A symbolic link shows the view, with its real names; a hard link must be to the bytes.
        self._ways = Ways(modes, lambda item: f"{view}/{item.path}")
        self._used: set[str] = set()
        self._kept: set[str] = set()
        self._copied = 0
        self._late: list[str] = []

    def take(self, item: Item, code: int) -> None:
        """Bring one item to its name, where the look found what `code` says."""
        there = f"{self._folder}/{item.path}"
        try:
            if code == ABSENT:
                try:
                    self._note(item, self._ways.make(item, there))
                    return
                except FileExistsError:
                    pass
                standing = stands_as(there, item)  # another process, or a twin ignoring case
                if not standing:
                    self._late.append(item.path)
                    return
            else:
                standing = FOUND[code]
            if code != IN_THE_WAY and self._suits(standing):
                self._kept.add(standing)
            else:
                self._note(item, self._ways.replace(item, there))
        except OSError as error:
            if self._mode in ("auto", "copy") or error.errno not in copying.UNSUPPORTED:
                raise
            raise _cannot(self._mode, there, error) from error

    def done(self) -> Placed:
        """What was done in all.

        Raises:
            StorageError: files appeared after the look, or two have one name here.
        """
        if self._late:
            raise _in_the_way(
                self._folder,
                self._late,
                "holds other files of these names, or ignores case; they were kept and all others "
                "placed",
                "move them away, or choose a folder on another filesystem",
            )
        modes = (self._used or self._kept) & set(_MODES)
        weakest = max(modes, key=_MODES.index, default=_MODES[0])
        better = _MODES[: _MODES.index(weakest)] if self._used and self._mode == "auto" else ()
        refused = self._ways.refused
        why = "; ".join(f"{each}: {refused[each]}" for each in better if each in refused)
        return Placed(weakest, self._copied, why)

    def _suits(self, standing: str) -> bool:
        """True if what stands there may stay. A copy is the user's own, and goes by force only."""
        if standing == "copy" and not self._force:
            return True
        return self._mode == "auto" or standing in ("link", self._mode)

    def _note(self, item: Item, mode: str) -> None:
        self._used.add(mode)
        if mode == "copy":
            self._copied += item.size


def _make_room(folder: str, items: Iterable[Item], room: Room, force: bool) -> None:
    """Make sure that nothing of the user's stands in the way, or with `force` take it away."""
    blocked = sorted(room.files | room.parents)
    unchanged = "holds other files of these names; nothing was changed"
    if blocked and not force:
        advice = "move them away; or replace them with --force (force=True)"
        raise _in_the_way(folder, blocked, unchanged, advice)
    if folders := [path for path in sorted(room.files) if _is_folder(f"{folder}/{path}")]:
        advice = "move them away; folders are never replaced"
        raise _in_the_way(folder, folders, unchanged, advice)
    if room.files and (double := sorted(twins(folder, items, room.files))):
        ignores = "ignores case, and others have these names too; nothing was changed"
        raise _in_the_way(folder, double, ignores, "choose a folder on another filesystem")
    for path in room.parents:  # files are replaced by the rename itself
        try:
            filesystem.unlink(f"{folder}/{path}")
        except OSError:
            if not _is_folder(f"{folder}/{path}"):  # made by another process meanwhile
                raise


def _make_folders(folder: str, folders: Sequence[str], room: Room) -> None:
    filesystem.make_folder(folder)
    for path in folders:
        if path not in room.existing:
            filesystem.make_folder(f"{folder}/{path}")


def _told(items: Iterable[Item], folder: str, total: int, emit: Emit) -> Iterator[Item]:
    """The items; now and then it is told how many of them stand."""
    count, told = 0, time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        if not count % _FILES_A_LOOK and (now := time.monotonic()) - told >= _SECONDS_A_WORD:
            emit(Linked(folder, count, total))
            told = now
    if count > _MANY:
        emit(Linked(folder, count, total))


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _cannot(mode: str, path: str, error: OSError) -> StorageError:
    return StorageError(
        f"link mode {mode!r} cannot be had for {path}: {os.strerror(error.errno or 0)}",
        hint="use another --link mode; auto takes the best that works",
        mode=mode,
    )


def _in_the_way(folder: str, blocked: Sequence[str], what: str, advice: str) -> StorageError:
    listed = "".join(f"\n  {path}" for path in blocked[:_LISTED])
    more = f"\n  and {len(blocked) - _LISTED} more" if len(blocked) > _LISTED else ""
    return StorageError(f"{folder} {what}:{listed}{more}", hint=advice, files=list(blocked))
