"""What programs get that were written for Pooch and change their import: cold, and warm."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

from tests.bench.measuring import DSCACHE, Contender, Course, Table, compare, start
from tests.bench.payloads import file
from tests.bench.programs import POOCH_LOOP, peer
from tests.bench.room import Room
from tests.servers import nginx

#: Rows and figures by which bars speak of these tables.
LOOP, MANY = "loop over the drop-in's fetch", "the drop-in's fetch_many"
MICROSECONDS = "µs"

#: Bytes of the files that scikit-image carries, and of one more.
_SIZES = [418, 940, 1127, 3386, 4438, 4950, 5278, 16633, 42704, 47679, 50177, 51858, 58784, 74183]
_SIZES += [75825, 85584, 106634, 112525, 139512, 179723, 194247, 200000, 217893, 240512, 269564]
_SIZES += [466706, 477916, 527940, 640373, 644701, 791555, 1000080, 1146173]
_WARM_SIZE = 1 << 30


def cold(room: Room) -> Table:
    """The files of scikit-image one after the other, into an empty folder and an empty cache."""
    files, hashes = _served(room.folder / "scikit-image")
    with nginx(files, _made(room.folder / "scikit-image-server")) as server:
        arguments = (f"{server.url}/", str(hashes))
        contenders = [
            Contender(LOOP, peer("drop_in_loop", *arguments), role=DSCACHE),
            Contender(MANY, peer("drop_in_many", *arguments), role=DSCACHE),
            Contender(POOCH_LOOP, peer("pooch_loop", *arguments), needs="pooch"),
        ]
        target = room.folder / "target"
        course = Course(target, 1, max(_SIZES), room.environment(), max(room.runs, 7))
        rows = compare(course, contenders)
    total = f"{sum(_SIZES) / 1e6:.1f} MB"
    title = f"{len(_SIZES)} files of scikit-image ({total}), the whole process"
    return Table("drop-in", title, rows)


def warm(room: Room) -> Table:
    """A fetch of a file that is there, in one process."""
    made = file(room.files / "warm.bin", _WARM_SIZE)
    with nginx(room.files, _made(room.folder / "warm-server")) as server:
        words = peer("drop_in_warm", f"{server.url}/", made.path.name, made.sha256)
        contender = Contender(LOOP, words, role=DSCACHE)
        said = start(contender, room.folder / "warm-target", room.environment())().said
    made.path.unlink()
    ours, theirs = map(float, said.split())
    fact = f"{ours:.2f} ms with the drop-in, {theirs:.0f} ms with Pooch: medians in one process"
    title = f"a fetch of what is there, {_WARM_SIZE >> 20} MiB"
    return Table("drop-in-warm", title, facts=[fact], figures={MICROSECONDS: 1000 * ours})


def _served(folder: Path) -> tuple[Path, Path]:
    """The files' folder, and the file with their hashes by name."""
    files = _made(folder) / "files"
    files.mkdir()
    registry = {}
    for number, size in enumerate(_SIZES):
        data = os.urandom(size)
        (files / f"{number:02}.bin").write_bytes(data)
        registry[f"{number:02}.bin"] = sha256(data).hexdigest()
    (folder / "hashes.json").write_text(json.dumps(registry))
    return files, folder / "hashes.json"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


WORKLOADS = {"drop-in": cold, "drop-in-warm": warm}
