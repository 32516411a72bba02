"""Checks of the cache folder: is there one, who may write, how much room, who shares it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import msgspec

from dscache import disk, filesystem
from dscache.doctor.checks import failure, fine, of_error, warning
from dscache.doctor.mounts import mount_of
from dscache.errors import StorageError
from dscache.events import Emit
from dscache.quantities import show_size
from dscache.results import Check
from dscache.settings import Settings
from dscache.store import Store, probes
from dscache.store.layout import FORMAT, Layout
from dscache.store.owner import this_boot

_LITTLE, _VERY_LITTLE = 10 * 10**9, 10**9
_FEW_FILES = 10_000
#: Of so many files and folders it is looked who may write to them.
_SAMPLE = 5000


class Opened(msgspec.Struct, frozen=True):
    """A cache folder as far as it can be used."""

    checks: tuple[Check, ...]
    store: Store | None = None
    is_writable: bool = False


def open_root(settings: Settings, emit: Emit) -> Opened:
    """Open the cache; one that is not there yet is made, as a fetch would make it."""
    root = settings.cache_dir
    was_there = os.path.isdir(root)
    try:
        store = Store(root, durability=settings.durability, emit=emit)
        has_cache = os.path.exists(store.layout.version)
        if was_there and not has_cache and (others := disk.names(root)):
            return Opened((_foreign(root, others),))
        if was_there and not store.is_writable:
            return Opened((_found(root, ""), _read_only(root)), store)
        store.prepare()
    except StorageError as error:
        if not was_there:
            _unmake(root)
        return Opened((of_error("folder", error),))
    made = "" if has_cache else "; made now, empty, as a fetch would have done"
    return Opened((_found(root, made), fine("writable", "yes")), store, True)


def disk_checks(root: str) -> Iterator[Check]:
    """The filesystem and its room, or what will hold a folder that is not there."""
    there = root
    while not os.path.isdir(there) and os.path.dirname(there) != there:
        there = os.path.dirname(there)
    mount = mount_of(there)
    if mount is None:
        yield fine("filesystem", "this system does not tell its type")
    else:
        where = "on the network" if mount.is_network else "on this machine"
        yield fine("filesystem", f"{mount.kind}, {where} (mounted at {mount.point})")
    yield _space(disk.free_space(there), there)
    if hasattr(os, "statvfs"):
        found = os.statvfs(there)
        yield _inodes(found.f_favail, found.f_files)


def durability(settings: Settings) -> Iterator[Check]:
    """When bytes are brought to the disk, and why."""
    if this_boot() is None:
        why = "the running boot cannot be named"
        yield fine("durability", f"bytes are synced before they appear: {why}")
    elif settings.durability == "sync":
        source = settings.sources.get("durability", "argument")
        yield fine(
            "durability", f'bytes are synced before they appear: durability = "sync" ({source})'
        )
    else:
        yield fine(
            "durability",
            "lazy: the running boot can be named, so records of it are proof, and others are "
            "verified once",
        )


def permissions(store: Store) -> Iterator[Check]:
    """Who shares the folder, and whether all may do with it what they must."""
    if not hasattr(os, "geteuid"):
        yield fine("permissions", "those of this system are not looked at")
        return
    made = None
    if store.is_writable:
        with probes.probing(store.layout) as folder:
            made = os.stat(folder)
            if not probes.keeps_permissions(folder):
                yield fine("permissions", "the filesystem keeps none: its mount says who may what")
                return
    root = os.stat(store.layout.root)
    closed, foreign = _looked_at(store.layout.root, root)
    if not root.st_mode & stat.S_IWGRP:
        yield _of_one(foreign)
    else:
        yield _of_group(store.layout.root, root, made, closed)
    yield from _protected(bool(root.st_mode & stat.S_IWGRP or foreign))


def _found(root: str, made: str) -> Check:
    return fine("folder", f"{root}, format {FORMAT}{made}")


def _foreign(root: str, others: list[str]) -> Check:
    shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
    return warning(
        "folder",
        f"{root} holds no cache, but other files ({shown}); nothing was tried there",
        "if it is the right folder, the first fetch makes a cache in it; else set DSCACHE_DIR, "
        "`cache_dir` or --cache-dir",
    )


def _read_only(root: str) -> Check:
    return warning(
        "writable",
        "no: it serves what is in it, and nothing can be added; what needs writing was not tried",
        f"if that is not meant, see who may write to {root}, and how its filesystem is mounted",
    )


def _unmake(root: str) -> None:
    """Leave no half-made cache where there was none."""
    layout = Layout(root)
    if not os.path.exists(layout.version):
        with suppress(OSError):
            filesystem.unlink(layout.tag)
            for folder in (layout.parts, layout.removals, root):
                filesystem.remove_folder(folder)


def _space(free: int, where: str) -> Check:
    shown = f"{show_size(free)} free"
    hint = f"free some space at {where}, or choose another cache folder"
    if free == 0:
        return failure("space", shown, hint)
    total = shutil.disk_usage(where).total
    if free < _VERY_LITTLE or (free < _LITTLE and free < total / 20):
        return warning("space", f"{shown} of {show_size(total)}", hint)
    return fine("space", shown)


def _inodes(free: int, total: int) -> Check:
    """Filesystems that make inodes as they need them have a total of 0."""
    if not total:
        return fine("inodes", "as many as there is space for")
    hint = "remove files that nobody needs, on that filesystem; their sizes do not matter"
    if free <= 0:
        return failure("inodes", f"none free of {total:,}: no file can be made", hint)
    if free < _FEW_FILES and free < total / 10:
        return warning("inodes", f"{free:,} free of {total:,}", hint)
    return fine("inodes", f"{free:,} free")


def _looked_at(root: str, found: os.stat_result) -> tuple[list[str], list[str]]:
    """Some of what the group cannot use as it must, and of what belongs to others."""
    closed, foreign = [], []
    for path, state in islice(_entries(root), _SAMPLE):
        needed = 0o070 if stat.S_ISDIR(state.st_mode) else 0o040
        if stat.S_ISLNK(state.st_mode):
            continue
        if state.st_mode & needed != needed or state.st_gid != found.st_gid:
            closed.append(path)
        if state.st_uid != os.geteuid():
            foreign.append(path)
    return closed, foreign


def _entries(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """What is in a folder and below, the upper levels first."""
    folders = [folder]
    for each in folders:
        try:
            with os.scandir(each) as entries:
                for entry in entries:
                    yield entry.path, entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False) and len(folders) < _SAMPLE:
                        folders.append(entry.path)
        except (FileNotFoundError, PermissionError):
            continue  # gone by now, or closed, as has been seen from outside


def _of_one(foreign: list[str]) -> Check:
    if foreign and os.geteuid() != 0:
        return warning(
            "permissions",
            f"the folder is not one of a group, but {_shown(foreign)} to others",
            "if it is your own cache, have them given to you (`chown -R`); it was perhaps used "
            "with sudo",
        )
    return fine("permissions", "the folder is writable for its owner alone")


def _of_group(
    where: str, root: os.stat_result, made: os.stat_result | None, closed: list[str]
) -> Check:
    """The folder is writable for a group; then all in it must be, and what is made now as well."""
    trouble, hints = [], []
    if not root.st_mode & stat.S_ISGID:
        trouble.append("new folders do not get its group")
        hints.append(f"`chmod g+s {where}`")
    if made and not made.st_mode & stat.S_IWGRP:
        trouble.append("what you make is closed to it")
        hints.append("`umask 002` for everybody who writes")
    if closed:
        trouble.append(f"the group cannot use {len(closed)} of what is there, such as {closed[0]}")
        hints.append(
            "by the owners of those "
            f"`find {where} -user $USER -type d -exec chmod g+rwxs {{}} +` and "
            f"`find {where} -user $USER -type f -exec chmod g+r {{}} +`"
        )
    if trouble:
        detail = f"the folder is for a group, but {'; '.join(trouble)}"
        return warning("permissions", detail, "; ".join(hints))
    return fine("permissions", f"the folder is for group {root.st_gid}, and all of it is")


def _protected(matters: bool) -> Iterator[Check]:
    try:
        with open("/proc/sys/fs/protected_hardlinks", encoding="ascii") as file:
            protected = file.read().strip() == "1"
    except OSError:
        return
    if matters:
        what = "symbolic links take the place of hard links to files of others"
        yield fine("protected-hardlinks", what if protected else "off: files of others are linked")


def _shown(paths: list[str]) -> str:
    if len(paths) == 1:
        return f"{paths[0]} belongs"
    return f"{len(paths)} files and folders, such as {paths[0]}, belong"
