"""Publishing to an object store: all of a registry, beside rclone, and then one dataset more.

The store is SeaweedFS on this machine, begun anew for each run: a store that has taken much before
is slower, and what it has taken it keeps in memory.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.bench.keeping import SECONDS
from tests.bench.measuring import DSCACHE, Contender, Row, Sample, Table, start
from tests.bench.payloads import many
from tests.bench.programs import DS
from tests.bench.room import Room
from tests.bench.sharing import rclone_s3
from tests.making import Shelf
from tests.weed import Weed, weed

RCLONE_S3 = "rclone copy to S3"
MORE = "dscache, one dataset more"
_FILES, _DATASETS = 1000, 10


def publish(room: Room) -> Table:
    """A registry that holds 1,000 files, of half the bytes of the large file in all."""
    size = room.big_size // 2 // _FILES
    folder, larger = room.folder / "published", room.folder / "published-more"
    _make(room, folder, size)
    shutil.copytree(folder, larger, copy_function=os.link)
    _make(room, larger, size, more=1)
    rows = [Row(DS, DSCACHE), Row(RCLONE_S3, verifies=False), Row(MORE, DSCACHE)]
    rows[1].skipped = Contender(RCLONE_S3, ("rclone",)).missing
    for number in range(-1, room.runs):
        runs = [_run(room, [_dscache(folder), _dscache(larger)])]
        runs += [] if rows[1].skipped else [_run(room, [_rclone(folder)])]
        if number >= 0:
            for row, sample in zip(
                (rows[0], rows[2], rows[1]), [each for run in runs for each in run], strict=False
            ):
                row.add(replace(sample, said=""))
    for each in (folder, larger):
        shutil.rmtree(each)
    title = f"{_FILES:,} files of {size >> 10:,} KiB published to SeaweedFS, hashed on the way"
    return Table("publish", title, rows, figures={SECONDS: rows[2].median()})


Make = Callable[[Weed, str], Contender]


def _run(room: Room, contenders: list[Make]) -> list[Sample]:
    """One after the other to the same new bucket of a new store."""
    folder = room.folder / "weed-for-one"
    try:
        with weed(folder) as store:
            bucket = store.bucket().removeprefix("s3://")
            environment = {**room.environment(), **store.environment()}
            return [
                start(make(store, bucket), room.folder / "target", environment)()
                for make in contenders
            ]
    finally:
        shutil.rmtree(folder)


def _dscache(folder: Path) -> Make:
    words = (sys.executable, "-m", "dscache", "registry", "publish", str(folder), "--no-progress")
    cache = ("--cache-dir", str(folder.parent / "no-cache"))
    return lambda _, bucket: Contender(DS, (*words, *cache, "--to", f"s3://{bucket}/r"))


def _rclone(folder: Path) -> Make:
    options = ("--config", "", "--transfers", "16", "--checkers", "16")

    def make(store: Weed, bucket: str) -> Contender:
        found = rclone_s3(store, str(folder), f"{bucket}/r")
        return replace(found, command=(*found.command, *options))

    return make


def _make(room: Room, folder: Path, size: int, more: int = 0) -> None:
    """A registry of datasets whose files it holds; `more` are added to one that is there."""
    shelf = Shelf(folder)
    for number in range(more or _DATASETS):
        files = many(room.files / "one-dataset", _FILES // _DATASETS if not more else 1, size)
        name = f"more-{number}" if more else f"set-{number}"
        artifacts = [
            {"path": path, "size": size, "hash": f"sha256:{sha256}", "blob": True}
            for path, sha256 in files.sha256.items()
        ]
        shelf.add(name, artifacts)
        for path, sha256 in files.sha256.items():
            target = folder / "blobs" / "sha256" / sha256[:2] / sha256[2:]
            target.parent.mkdir(parents=True, exist_ok=True)
            (files.folder / path).rename(target)
        shutil.rmtree(files.folder)


WORKLOADS = {"publish": publish}
