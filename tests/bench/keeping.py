"""Looking after a large cache: the plan of a prune, and what there is in it.

The cache is made by hand, of blobs of some bytes that hash to their names, since a fetch of a
million files would take longer than all the rest. BENCH_BLOBS says how many there are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from dscache.store import File, Record, Store
from dscache.store.layout import Layout
from dscache.store.owner import this_boot
from tests.bench.measuring import DSCACHE, FLOOR, Contender, Course, Table, compare
from tests.bench.programs import DS
from tests.bench.room import Room

FIND = "find -size +0"
#: The figure of what `usage` takes, in a table.
SECONDS = "s"
_DATASETS, _IN_EACH, _FEW = 10_000, 100, 5


def plan(room: Room) -> Table:
    """What a prune finds in a million blobs, beside a look at every file."""
    blobs = int(os.environ.get("BENCH_BLOBS") or _DATASETS * _IN_EACH)
    folder = room.folder / "million"
    _make(folder, _DATASETS, blobs // _DATASETS)
    contenders = [
        Contender(DS, _dscache(folder, "prune", "--dry-run"), role=DSCACHE, leaves=False),
        Contender(
            FIND, ("find", str(folder), "-type", "f", "-size", "+0"), role=FLOOR, leaves=False
        ),
    ]
    rows = compare(_course(room, patience=60.0), contenders)
    shutil.rmtree(folder)
    title = f"the plan of a prune: {blobs:,} blobs in {_DATASETS:,} datasets"
    return Table("plan", title, [replace(row, said="") for row in rows])


def usage(room: Room) -> Table:
    """What ten thousand datasets take."""
    folder = room.folder / "datasets"
    _make(folder, _DATASETS, _FEW)
    contender = Contender(DS, _dscache(folder, "usage"), role=DSCACHE, leaves=False)
    (row,) = compare(_course(room), [contender])
    shutil.rmtree(folder)
    title = f"usage of {_DATASETS:,} datasets of {_FEW} files each"
    return Table("usage", title, [replace(row, said="")], figures={SECONDS: row.median()})


def _dscache(folder: Path, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "dscache", *words, "--json", "--cache-dir", str(folder))


def _course(room: Room, patience: float = 10.0) -> Course:
    return Course(room.folder / "target", 0, 0, room.environment(), room.runs, patience)


def _make(folder: Path, datasets: int, each: int) -> None:
    """A cache of so many datasets of so many small files, without views."""
    store = Store(str(folder))
    store.prepare()
    for number in range(256):
        (folder / f"blobs/sha256/{number:02x}").mkdir(parents=True)
    (folder / "records/bench").mkdir(parents=True)
    for number in range(datasets):
        files = tuple(_blob(store.layout, f"{number} {file}\n".encode()) for file in range(each))
        content = hashlib.sha256(str(number).encode()).hexdigest()
        record = Record(
            registry="bench",
            name=f"set-{number}",
            version="1",
            content=content,
            complete=True,
            files=files,
            boot=this_boot(),
            durable=True,
            created="2026-01-01T00:00:00+00:00",
        )
        Path(store.layout.record(record.mark)).write_bytes(msgspec.json.encode(record))


def _blob(layout: Layout, data: bytes) -> File:
    sha256 = hashlib.sha256(data).hexdigest()
    fd = os.open(layout.blob(sha256), os.O_WRONLY | os.O_CREAT, 0o444)
    os.write(fd, data)
    os.close(fd)
    return File(f"{sha256[:16]}.bin", sha256, len(data), "0" * 32)


WORKLOADS = {"plan": plan, "usage": usage}
