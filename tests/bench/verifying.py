"""The workload of `verify`: what a cache holds read again, beside a pass of hashlib on one core."""

from __future__ import annotations

import os
import shutil

from tests.bench import payloads
from tests.bench.measuring import DSCACHE, FLOOR, Contender, Row, Sample, Table, start
from tests.bench.programs import HASHLIB, VERIFY_FULL, VERIFY_QUICK, peer
from tests.bench.room import Room

_FILES = 8


def verify(room: Room) -> Table:
    """Both ways of verifying, from the page cache; start-up is left out of all figures."""
    folder, cache = room.folder / "verified", room.folder / "verified-cache"
    folder.mkdir()
    size = room.big_size // _FILES
    files = [payloads.file(folder / f"{number}.bin", size) for number in range(_FILES)]
    environment = room.environment()
    words = [word for each in files for word in (str(each.path), each.sha256)]
    start(Contender("fill", peer("dscache_kept", *words)), cache, environment)()
    shutil.rmtree(folder)
    contenders = [
        Contender(VERIFY_FULL, peer("dscache_verified", "full"), role=DSCACHE),
        Contender(VERIFY_QUICK, peer("dscache_verified", "quick"), role=DSCACHE),
        Contender(HASHLIB, peer("hash_blobs"), role=FLOOR),
    ]
    rows = [Row(each.name, each.role) for each in contenders]
    for number in range(-1, room.runs):
        for contender, row in zip(contenders, rows, strict=True):
            sample = start(contender, cache, environment)()
            if number >= 0:
                row.add(Sample(float(sample.said), sample.cpu, sample.memory, sample.said))
    shutil.rmtree(cache)
    full, quick, alone = (row.median() for row in rows)
    cores = os.cpu_count() or 1
    facts = [
        f"verify --full: {alone / cores / full:.2f} x {cores} cores x hashlib's speed",
        f"verify --quick: {full / quick:.1f} x verify --full",
    ]
    title = f"{_FILES} files of {size >> 20} MiB verified, from the page cache"
    figures = {"cores": alone / cores / full, "quick": full / quick}
    return Table("verify", title, rows, facts, figures)
