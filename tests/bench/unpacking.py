"""The workloads of archives: unpacked, from the cache and while they arrive, and linked.

Where the archive is in the cache, what is timed makes the tree, the view and the record; those of
the run before are removed, the bytes stay. Other programs read the very same file.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.bench import archives, payloads
from tests.bench.archives import Archive
from tests.bench.measuring import DSCACHE, FLOOR, Contender, Course, Table, compare, start
from tests.bench.programs import CP, DS, PACKED, PROJECT, peer, pooch_unpacked, tar, unzip
from tests.bench.room import Room
from tests.bench.special import WARM, warm_fetch

#: What stays in a cache so that its archives are there, and neither trees nor views of them.
_BYTES = frozenset({"CACHEDIR.TAG", "VERSION", "aliases", "blobs", "locks", "parts", "proofs"})
#: The seconds that each may have; gigabytes take their time.
_PATIENCE = 20.0


def unpack(room: Room) -> Table:
    """A tar of very many files, from the cache."""
    archive = _images(room, copies=2)
    title = f"tar of {_count(archive)}, in the cache, unpacked"
    return _from_cache(room, archive, Table("unpack", title), tar(archive))


def arriving(room: Room) -> Table:
    """The same archive from a server, unpacked while it arrives."""
    archive = _images(room, copies=3)
    contenders = [
        _dscache("unpacked"),
        Contender(PROJECT, peer("dscache_project", "unpacked"), role=DSCACHE),
        Contender(PACKED, peer("dscache_datasets", "packed"), role=DSCACHE, leaves=False),
        replace(tar(archive), role=FLOOR),
    ]
    course = _course(room, archive, room.folder / "target")
    title = f"tar of {_count(archive)}, over http, unpacked"
    return Table("arriving", title, compare(course, contenders))


def link(room: Room) -> Table:
    """The files of that archive into a project, and what a fetch costs when they are there."""
    archive = _images(room, copies=2)
    course = _course(room, archive, room.folder / "target")
    with _packed(room, archive) as cache:
        start(_dscache("unpacked"), cache, course.environment)()
        contenders = [
            Contender(DS, peer("dscache_linked", "unpacked", str(cache)), role=DSCACHE),
            _cp(_view(cache, course.environment)),
        ]
        rows = compare(course, contenders)
        best, median = warm_fetch("unpacked", cache, course.environment)
    facts = [f"a fetch of what is there: {best:.0f} µs at best, median {median:.0f} µs"]
    if rows[0].said:
        facts.append(f"dscache, without its start-up: {float(rows[0].said):.3f} s in the last run")
    title = f"{_count(archive)} of the cache into a project, by hard link"
    return Table("link", title, rows, facts, {WARM: median})


def tar_gz(room: Room) -> Table:
    """A compressed tar, half of it text."""
    archive = _mixed(room, ".gz", room.big_size // 2)
    processed = pooch_unpacked("Untar", archive)
    return _from_cache(room, archive, _table("tar.gz", archive), tar(archive, "-z"), processed)


def zipped(room: Room) -> Table:
    """A zip of many small texts."""
    count = room.members * 2 // 5
    size = count * archives.TEXT
    archive = room.archive("texts.zip", lambda path: archives.texts(path, count), 2 * size)
    table = Table("zip", f"zip of {count:,} texts of 40 KB, in the cache, unpacked")
    return _from_cache(room, archive, table, unzip(archive), pooch_unpacked("Unzip", archive))


def tar_zst(room: Room) -> Table:
    """The same with zstd."""
    archive = _mixed(room, ".zst", room.big_size // 2)
    return _from_cache(room, archive, _table("tar.zst", archive), tar(archive, "--zstd"))


def tar_xz(room: Room) -> Table:
    """The same with xz; less of it, since xz is slow."""
    archive = _mixed(room, ".xz", room.big_size // 16)
    return _from_cache(room, archive, _table("tar.xz", archive), tar(archive, "-J"))


WORKLOADS: dict[str, Callable[[Room], Table]] = {
    "unpack": unpack,
    "arriving": arriving,
    "link": link,
    "tar.gz": tar_gz,
    "zip": zipped,
    "tar.zst": tar_zst,
    "tar.xz": tar_xz,
}


def _images(room: Room, copies: int) -> Archive:
    """The archive of images; there must be room for so many times its bytes."""
    count = room.members
    needed = copies * count * archives.IMAGE
    return room.archive("images.tar", lambda path: archives.images(path, count), needed)


def _count(archive: Archive) -> str:
    return f"{archive.count:,} files of {archive.each >> 10} KiB"


def _mixed(room: Room, suffix: str, size: int) -> Archive:
    count = max(1, size // archives.MIXED)
    name = f"mixed.tar{suffix}"
    return room.archive(name, lambda path: archives.mixed(path, count), 3 * size)


def _table(kind: str, archive: Archive) -> Table:
    size = f"{archive.count * archive.each >> 20:,} MiB"
    return Table(kind, f"{kind} of {size}, half text, half noise, in the cache, unpacked")


def _from_cache(room: Room, archive: Archive, table: Table, *others: Contender) -> Table:
    """The table with the rows of dscache and the others, that unpack what is in a cache."""
    with _packed(room, archive) as cache:
        course = replace(_course(room, archive, cache), keeps=_BYTES)
        table.rows = compare(course, [_dscache("unpacked"), *others])
    return table


def _course(room: Room, archive: Archive, target: Path) -> Course:
    registry = room.folder / f"registry-of-{archive.file.path.name}"
    if not registry.exists():
        url = f"{room.http.url}/{archive.file.path.name}"
        payloads.register(registry, packed=(archive.file, url))
        payloads.register_archive(registry, "unpacked", archive.file, url, archive.recipe)
    environment = room.environment(registry=registry)
    return Course(target, archive.count, archive.each, environment, room.runs, _PATIENCE)


@contextmanager
def _packed(room: Room, archive: Archive) -> Iterator[Path]:
    """A cache that has the archive, and has not unpacked it."""
    cache = room.folder / "packed"
    try:
        start(_dscache("packed"), cache, _course(room, archive, cache).environment)()
        # What is served is the cache's own file from now on: the bytes take memory only once.
        sha256, served = archive.file.sha256, archive.file.path
        served.unlink()
        os.link(cache / "blobs" / "sha256" / sha256[:2] / sha256[2:], served)
        yield cache
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _dscache(name: str) -> Contender:
    return Contender(DS, peer("dscache_datasets", name), role=DSCACHE)


def _view(cache: Path, environment: Mapping[str, str]) -> str:
    words = (sys.executable, "-m", "dscache", "path", "unpacked", "--cache-dir", str(cache))
    return start(Contender(DS, words), cache, environment)().said


def _cp(view: str) -> Contender:
    return Contender(CP, ("cp", "-al", f"{view}/.", "{target}/"), verifies=False)
