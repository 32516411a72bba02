"""`make bench`: measures, prints, and writes docs/performance.{json,md,svg}.

Environment: BENCH_RUNS, timed runs of each contender at most (3); BENCH_BIG, bytes of the large
file (2 GiB); BENCH_FILES, files in the largest archive (50,000); BENCH_BLOBS, blobs in the largest
cache (1,000,000); BENCH_ONLY, workloads by name, joined by commas; BENCH_FOLDER and BENCH_DISK,
where everything lies, and where a disk is. A run of other sizes or of fewer runs than by default is
printed and not written; one of some workloads is written beside what the others have given before
on the same machine. `python -m tests.bench render` writes the page and the picture anew.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.bench import (
    chart,
    dropins,
    keeping,
    machine,
    publishing,
    reading,
    report,
    results,
    sharing,
    special,
    transfers,
    unpacking,
    verifying,
    vision,
)
from tests.bench.measuring import Table
from tests.bench.room import Room, room

_BIG, _FILES, _RUNS = 2 << 30, 50_000, 3
_DOCS = Path(__file__).parents[2] / "docs"
_RESULTS, _PAGE, _CHART = (_DOCS / f"performance.{kind}" for kind in ("json", "md", "svg"))

WORKLOADS: dict[str, Callable[[Room], Table]] = {
    "big": transfers.big,
    "disk": transfers.disk,
    "tls": transfers.tls,
    "small": transfers.small,
    "small-h2": transfers.small_h2,
    "limited": transfers.limited,
    "each": transfers.each,
    "whole": transfers.whole,
    "fast": transfers.fast,
    "hosts": transfers.hosts,
    "latency": transfers.latency,
    "rate": special.rate,
    "together": special.together,
    "warm": special.warm,
    "start": special.start_up,
    **unpacking.WORKLOADS,
    "verify": verifying.verify,
    **keeping.WORKLOADS,
    **sharing.WORKLOADS,
    **publishing.WORKLOADS,
    **dropins.WORKLOADS,
    **reading.WORKLOADS,
    **vision.WORKLOADS,
}


def main() -> None:
    """Run what is asked for."""
    if sys.argv[1:] == ["render"]:
        _render(results.read(_RESULTS))
        return
    # Ended from outside, it leaves neither servers nor gigabytes in memory.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runs = int(os.environ.get("BENCH_RUNS") or _RUNS)
    big = int(os.environ.get("BENCH_BIG") or _BIG)
    members = int(os.environ.get("BENCH_FILES") or _FILES)
    chosen = _chosen()
    began = time.monotonic()
    with room(big, members, runs) as place:
        found = results.Results(machine.facts(place.folder))
        print(", ".join(f"{name} {value}" for name, value in found.machine.items()))
        print(f"up to {runs} runs each, in turn")
        for name in chosen:
            table = _measured(name, place)
            report.show(table)
            found.add(table, machine.today())
    report.show_bars(found.tables)
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if (big, members) == (_BIG, _FILES) and runs >= _RUNS:
        _record(found)
    else:
        print("nothing is written: other sizes or fewer runs than by default")


def _chosen() -> list[str]:
    names = [name for name in os.environ.get("BENCH_ONLY", "").split(",") if name]
    if unknown := set(names) - set(WORKLOADS):
        sys.exit(f"BENCH_ONLY: {', '.join(sorted(unknown))}: not among {', '.join(WORKLOADS)}")
    return names or list(WORKLOADS)


def _measured(name: str, place: Room) -> Table:
    try:
        return WORKLOADS[name](place)
    except (RuntimeError, pytest.skip.Exception) as reason:
        return Table(name, name, facts=[f"SKIPPED: {reason}"])


def _record(found: results.Results) -> None:
    kept = results.read(_RESULTS)
    if _agree(kept.machine, found.machine):
        for key, table in kept.tables.items():
            if key not in found.tables:
                found.add(table, kept.dates[key])
    found.tables = {name: found.tables[name] for name in WORKLOADS if name in found.tables}
    found.write(_RESULTS)
    _render(found)


def _agree(kept: Mapping[str, str], found: Mapping[str, str]) -> bool:
    """True if what is kept is of the same machine; it may lack programs that came later."""
    return kept.items() <= found.items()


def _render(found: results.Results) -> None:
    report.write(_PAGE, found)
    chart.draw(_CHART, found.tables)
    print(f"docs/{_PAGE.name}, docs/{_CHART.name}: written from docs/{_RESULTS.name}")


if __name__ == "__main__":
    main()
