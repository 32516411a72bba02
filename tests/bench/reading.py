"""What reading through fsspec costs when all is there: a large file in a row, and many opens."""

from __future__ import annotations

import shutil

from tests.bench import payloads
from tests.bench.measuring import DSCACHE, FLOOR, Contender, Row, Sample, Table, start
from tests.bench.programs import peer
from tests.bench.room import Room

#: Rows and figures by which bars speak of this table.
FSSPEC, PLAIN = "fsspec, dscache://", "open"
OPENS = "µs an open"
_FILES = 200


def read(room: Room) -> Table:
    """Half of the large file's bytes, from the page cache, start-up left out; then small files."""
    size = room.big_size // 2
    made = payloads.file(room.files / "read.bin", size)
    registry = payloads.register(
        room.folder / "registry-of-read", read=(made, f"{room.http.url}/{made.path.name}")
    )
    cache, environment = room.folder / "read", dict(room.environment(registry=registry))
    environment["DSCACHE_DIR"] = str(cache)
    start(Contender("fill", peer("dscache_datasets", "read")), cache, environment)()
    made.path.unlink()
    contenders = [
        Contender(FSSPEC, peer("read_fsspec", "read", made.path.name), role=DSCACHE),
        Contender(PLAIN, peer("read_plain", "read"), role=FLOOR),
    ]
    rows = [Row(each.name, each.role) for each in contenders]
    for number in range(-1, max(room.runs, 7)):
        for contender, row in zip(contenders, rows, strict=True):
            sample = start(contender, cache, environment)()
            if number >= 0:
                row.add(Sample(float(sample.said), sample.cpu, sample.memory, ""))
    opens = Contender(FSSPEC, peer("open_fsspec", str(_FILES)), role=DSCACHE)
    ours, theirs = map(float, start(opens, cache, environment)().said.split())
    shutil.rmtree(cache)
    through, plain = (row.median() for row in rows)
    facts = [
        f"{size / through / 1e9:.2f} GB/s through fsspec, {plain / through:.2f} x plain open",
        f"an open of one of {_FILES:,} files: {ours:.0f} µs; of a local one: {theirs:.0f} µs",
    ]
    title = f"{size >> 20} MiB read in a row, from the page cache"
    return Table("read", title, rows, facts, {OPENS: ours})


WORKLOADS = {"read": read}
