"""The workloads of archives: unpacked, from the cache and while they arrive, and linked.

Where the archive is in the cache, what is timed makes the tree, the view and the record; those of
the run before are removed, the bytes stay. Programs read the very same file.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import archives, payloads
from tests.bench.archives import Archive
from tests.bench.measuring import (
    DSCACHE,
    FLOOR,
    Contender,
    Course,
    Row,
    Table,
    compare,
    remove,
    start,
)
from tests.bench.programs import CP, DS, PACKED, PROJECT, TAR, UNZIP, peer
from tests.bench.room import Room
from tests.bench.special import WARM, warm_fetch

#: What stays in a cache so that its archives are there, and neither trees nor views of them.
_BYTES = frozenset({"CACHEDIR.TAG", "VERSION", "aliases", "blobs", "locks", "parts", "proofs"})
#: The seconds that each may have where gigabytes are unpacked.
_PATIENCE = 20.0
_SPARE = 512 << 20


def unpack(room: Room) -> Table:
    """A tar of very many files, from the cache."""
    archive = _images(room, copies=2)
    rows = _unpacked(room, archive, [_tar(archive)])
    return Table("unpack", f"tar of {_images_title(archive)}, in the cache, unpacked", rows)


def arriving(room: Room) -> Table:
    """The same archive from a server, unpacked while it arrives."""
    archive = _images(room, copies=3)
    environment = _environment(room, archive)
    contenders = [
        _dscache("unpacked"),
        Contender(PACKED, peer("dscache_datasets", "packed"), role=DSCACHE, leaves=False),
        replace(_tar(archive), role=FLOOR),
        Contender(PROJECT, peer("dscache_project", "unpacked"), role=DSCACHE),
    ]
    course = _course(room, archive, room.folder / "target", environment)
    rows = compare(course, contenders)
    return Table("arriving", f"tar of {_images_title(archive)}, over http, unpacked", rows)


def link(room: Room) -> Table:
    """The files of that archive into a project, and a fetch when they are there."""
    archive = _images(room, copies=2)
    with _packed(room, archive) as stock:
        start(_dscache("unpacked"), stock.cache, stock.environment)()
        view = _view(stock)
        contenders = [
            Contender(DS, peer("dscache_linked", "unpacked", str(stock.cache)), role=DSCACHE),
            Contender(CP, ("cp", "-al", f"{view}/.", "{target}/"), verifies=False),
        ]
        course = _course(room, archive, room.folder / "target", stock.environment)
        rows = compare(course, contenders)
        best, median = warm_fetch("unpacked", stock.cache, stock.environment)
    facts = [f"a fetch of what is there: {best:.0f} µs at best, median {median:.0f} µs"]
    if rows[0].said:
        facts.append(f"dscache, without its start-up: {float(rows[0].said):.3f} s in the last run")
    title = f"{_images_title(archive)} of the cache into a project, by hard link"
    return Table("link", title, rows, facts, {WARM: median})


def tar_gz(room: Room) -> Table:
    """A compressed tar, half of it text."""
    archive = _mixed(room, ".gz", room.big_size // 2)
    return _compressed(room, archive, "tar.gz", [_tar(archive, "-z", "gzip"), _pooch("Untar")])


def tar_zst(room: Room) -> Table:
    """The same with zstd."""
    archive = _mixed(room, ".zst", room.big_size // 2)
    return _compressed(room, archive, "tar.zst", [_tar(archive, "--zstd", "zstd")])


def tar_xz(room: Room) -> Table:
    """The same with xz; less of it, since xz is slow."""
    archive = _mixed(room, ".xz", room.big_size // 16)
    return _compressed(room, archive, "tar.xz", [_tar(archive, "-J", "xz")])


def zipped(room: Room) -> Table:
    """A zip of many small texts."""
    count = room.members * 2 // 5
    size = count * archives.TEXT
    archive = room.archive("texts.zip", lambda path: archives.texts(path, count), 2 * size)
    unzip = ("unzip", "-q", str(archive.file.path), "-d", "{target}")
    contenders = [Contender(UNZIP, unzip, verifies=False), _pooch("Unzip")]
    rows = _unpacked(room, archive, contenders)
    title = f"zip of {count:,} x {archives.TEXT // 1000} KB of text, in the cache, unpacked"
    return Table("zip", title, rows)


WORKLOADS: dict[str, Callable[[Room], Table]] = {
    "unpack": unpack,
    "arriving": arriving,
    "link": link,
    "tar.gz": tar_gz,
    "tar.zst": tar_zst,
    "tar.xz": tar_xz,
    "zip": zipped,
}


@dataclass(frozen=True)
class _Stock:
    """A cache that has the archive, and has not unpacked it."""

    cache: Path
    environment: Mapping[str, str]


def _images(room: Room, copies: int) -> Archive:
    """The archive of images; there must be room for so many times its bytes."""
    needed = copies * room.members * archives.IMAGE
    return room.archive("images.tar", lambda path: archives.images(path, room.members), needed)


def _mixed(room: Room, suffix: str, size: int) -> Archive:
    count = size // archives.MIXED
    name = f"mixed.tar{suffix}"
    return room.archive(name, lambda path: archives.mixed(path, count), 3 * size)


def _compressed(room: Room, archive: Archive, kind: str, others: Sequence[Contender]) -> Table:
    size = f"{archive.count * archive.each >> 20} MiB"
    title = f"{kind} of {size}, half text, half noise, in the cache, unpacked"
    return Table(kind, title, _unpacked(room, archive, others))


def _unpacked(room: Room, archive: Archive, others: Sequence[Contender]) -> list[Row]:
    """dscache and the others unpack what is in a cache."""
    with _packed(room, archive) as stock:
        given = {"{url}": _url(room, archive), "{sha256}": archive.file.sha256}
        others = [replace(each, command=_filled(each.command, given)) for each in others]
        course = _course(room, archive, stock.cache, stock.environment)
        return compare(replace(course, keeps=_BYTES), [_dscache("unpacked"), *others])


def _filled(command: Sequence[str], given: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(given.get(word, word) for word in command)
