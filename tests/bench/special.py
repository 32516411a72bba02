"""The workloads that are not simply downloads side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.bench.measuring import DSCACHE, FLOOR, Contender, Row, Table, compare, start
from tests.bench.programs import CURL, DS, aria2, curl, dscache_file, peer, rclone, wget
from tests.bench.room import MIDDLE, Room

#: The figure of a warm fetch in a table.
WARM = "µs"

_RATE = 50_000_000
_PROCESSES = 32


def rate(room: Room) -> Table:
    """How well a limit on the rate is kept."""
    url = f"{room.http.url}/{room.middle.path.name}"
    command = peer("dscache_limited", url, room.middle.sha256, str(_RATE))
    total, per_second = f"--max-overall-download-limit={_RATE}", f"--limit-rate={_RATE}"
    contenders = [
        Contender(DS, command, role=DSCACHE),
        replace(curl(url, "--limit-rate", str(_RATE)), name=f"{CURL} --limit-rate"),
        replace(aria2(url, room.middle, 16, total), name="aria2c --max-overall-download-limit"),
        replace(rclone(url, "--bwlimit", f"{_RATE}B"), name="rclone copy --bwlimit"),
        replace(wget(url, per_second), name="wget --limit-rate"),
    ]
    rows = compare(replace(room.course(room.middle), warm_up=False, runs=1), contenders)
    facts = [f"{each.name}: {_percent(each.median())}" for each in rows if each.seconds]
    if rows[0].said:
        facts.append(f"dscache, without its start-up: {_percent(float(rows[0].said))}")
    title = f"{MIDDLE >> 20} MiB limited to {_RATE / 1e6:.0f} MB/s by the client"
    return Table("rate", title, rows, facts)


def _percent(seconds: float) -> str:
    return f"{MIDDLE / seconds / _RATE:.1%} of the rate asked for"


def together(room: Room) -> Table:
    """Many processes that want the large file at once."""
    before = len(room.http.requests())
    contender = dscache_file(f"{room.http.url}/{room.big.path.name}", room.big)
    environment = room.environment()
    waiting = [start(contender, room.shared, environment) for _ in range(_PROCESSES)]
    row = Row(DS, DSCACHE)
    for wait in waiting:
        row.add(wait())
    sent = sum(each.sent for each in room.http.requests(at_least=before + 1)[before:])
    facts = [f"the server sent the file {sent / room.big.size:.2f} times"]
    title = f"{_PROCESSES} processes at once, the same {room.big.size >> 20} MiB"
    return Table("together", title, [row], facts)


def warm(room: Room) -> Table:
    """What a fetch costs when everything is there; the file is left by `together`, or fetched."""
    environment = room.environment(registry=room.registry_of_big)
    best, median = warm_fetch("big", room.shared, environment)
    fact = f"{best:.0f} µs at best, median {median:.0f} µs: of 20 blocks of 50 in one process"
    return Table("warm", "a fetch of what is there", facts=[fact], figures={WARM: median})


def warm_fetch(name: str, cache: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    """Microseconds of a fetch of what is there, in one process: the best of blocks, the median."""
    contender = Contender(DS, peer("dscache_warm", name), role=DSCACHE)
    best, median = map(float, start(contender, cache, environment)().said.split())
    return best, median


def start_up(room: Room) -> Table:
    """Whole processes that do next to nothing."""
    environment = room.environment(registry=room.registry_of_big)
    cached = Contender(DS, peer("dscache_datasets", "big"))
    start(cached, room.shared, environment)()
    path = (sys.executable, "-m", "dscache", "path", "big", "--cache-dir", str(room.shared))
    contenders = [
        Contender("dscache path", path, role=DSCACHE, leaves=False),
        Contender("import dscache", (sys.executable, "-c", "import dscache"), leaves=False),
        Contender("python", (sys.executable, "-c", "pass"), role=FLOOR, leaves=False),
    ]
    course = replace(room.course(room.big, environment), runs=5 * room.runs)
    return Table("start", "start-up", compare(course, contenders))
