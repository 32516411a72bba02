"""torchvision's CIFAR10 with `download=True`, plain and through the cache, cold and again."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.bench.measuring import DSCACHE, Contender, Row, Sample, Table, start
from tests.bench.room import Room
from tests.servers import Server, nginx

#: Rows and figures by which bars speak of this table.
PLAIN, COLD, AGAIN = "torchvision", "torchvision on dscache", "the same in a second project"
BYTES = "bytes"
_RUNS = 5


def cifar10(room: Room) -> Table:
    """The call alone: not the seconds that torch takes to be imported."""
    if find_spec("torchvision") is None:
        raise RuntimeError("torchvision is not installed (pip install torchvision)")
    place = room.folder / "cifar10"
    files = place / "files"
    files.mkdir(parents=True)
    archive = files / "cifar-10-python.tar.gz"
    start(Contender("make", _program("make", str(archive))), place, room.environment())()
    rows = [Row(PLAIN), Row(COLD, DSCACHE), Row(AGAIN, DSCACHE)]
    with nginx(files, place / "server") as server:
        for number in range(-1, max(room.runs, _RUNS)):
            for row in rows:
                sample = _sample(room, row.name, server, archive)
                if number >= 0:
                    row.add(sample)
            asked = len(server.requests())
            _sample(room, AGAIN, server, archive)
            sent = sum(request.sent for request in server.requests()[asked:])
    shutil.rmtree(place)
    title = "CIFAR10(download=True), 172 MB from nginx, the call alone"
    return Table("cifar10", title, rows, figures={BYTES: float(sent)})


def _sample(room: Room, name: str, server: Server, archive: Path) -> Sample:
    place = archive.parents[1]
    cache = place / "cache"
    _clear(place / name, *([cache] if name == COLD else []))
    kind = "plain" if name == PLAIN else "dscache"
    url = f"{server.url}/{archive.name}"
    command = _program(kind, url, f"{archive}.json", "{target}")
    environment = {**room.environment(), "DSCACHE_DIR": str(cache)}
    sample = start(Contender(name, command), place / name, environment)()
    return Sample(float(sample.said.split()[-1]), sample.cpu, sample.memory, "")


def _clear(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _program(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.bench.cifar", *words)


WORKLOADS = {"cifar10": cifar10}
