"""What dscache is meant to reach beside its peers, and what a run says about it: plain facts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench import dropins, keeping, publishing, reading, sharing, unpacking, vision
from tests.bench.keeping import FIND, SECONDS
from tests.bench.measuring import DSCACHE, Row, Table
from tests.bench.programs import (
    ARIA2,
    ARIA2_MANY,
    AXEL,
    CP,
    CURL,
    CURL_HASH,
    CURL_MANY,
    DS,
    HASHLIB,
    PACKED,
    POOCH,
    POOCH_LOOP,
    PROJECT,
    RCLONE,
    TAR,
    UNZIP,
    VERIFY_FULL,
    VERIFY_QUICK,
)
from tests.bench.special import WARM
from tests.bench.transfers import ALONE, BESIDE

_MOST_MEMORY = 100.0
_LOCAL = {
    *unpacking.WORKLOADS,
    *keeping.WORKLOADS,
    *sharing.WORKLOADS,
    *publishing.WORKLOADS,
    *dropins.WORKLOADS,
    *reading.WORKLOADS,
    *vision.WORKLOADS,
}


@dataclass(frozen=True)
class Bar:
    """`figure` of dscache's row in a table is at most `limit` times the best of the others.

    Attributes:
        longest: times the longest of them instead: of parts that go on at the same time.
        slack: and so many seconds.
    """

    table: str
    limit: float
    others: tuple[str, ...]
    figure: str = "seconds"
    row: str = DS
    longest: bool = False
    slack: float = 0.0

    def __str__(self) -> str:
        what = "CPU seconds of " if self.figure == "cpu" else ""
        which = "the longest of " if self.longest else "the best of "
        slack = f", plus {self.slack:g} s" if self.slack else ""
        others = ", ".join(self.others)
        return f"≤ {self.limit:g} x {what}{which if len(self.others) > 1 else ''}{others}{slack}"

    def verdict(self, table: Table) -> Verdict:
        """What was measured; the ratio is without the slack."""
        ours = table.row(self.row)
        theirs = [row.median(self.figure) for name in self.others if (row := table.row(name))]
        # The longest of some is known only with all of them.
        if ours is None or not theirs or (self.longest and len(theirs) < len(self.others)):
            return Verdict(table.title, str(self))
        value, peer = ours.median(self.figure), max(theirs) if self.longest else min(theirs)
        met = value <= self.limit * peer + self.slack
        return Verdict(table.title, str(self), f"{value / peer:.2f} x", met)


@dataclass(frozen=True)
class Most:
    """A figure of a table, or the memory of one of its rows, is at most `limit`."""

    table: str
    limit: float
    unit: str
    what: str
    row: str = ""

    def __str__(self) -> str:
        return f"{self.what} ≤ {self.limit:g} {self.unit}"

    def verdict(self, table: Table) -> Verdict:
        """What was measured."""
        row = table.row(self.row)
        value = row.median("memory") if row else table.figures.get(self.unit)
        if value is None:
            return Verdict(table.title, str(self))
        return Verdict(table.title, str(self), f"{value:.0f} {self.unit}", value <= self.limit)


@dataclass(frozen=True)
class Verdict:
    """One bar and what became of it."""

    where: str
    wanted: str
    measured: str = "-"
    met: bool | None = None

    @property
    def word(self) -> str:
        """In a table."""
        return {True: "met", False: "not met", None: "not measured"}[self.met]


BARS: tuple[Bar | Most, ...] = (
    Bar("big", 1.2, (RCLONE,)),
    Bar("big", 0.75, (CURL_HASH,)),
    Bar("big", 0.15, (POOCH,)),
    Bar("big", 0.6, (ARIA2,)),
    Bar("big", 1.25, (CURL_HASH,), figure="cpu"),
    Bar("tls", 1.35, (CURL,)),
    Bar("small", 2.0, (CURL_MANY,)),
    Bar("small", 0.1, (POOCH_LOOP,)),
    Bar("small", 0.6, (ARIA2_MANY,)),
    Bar("limited", 1.1, (AXEL, RCLONE, ARIA2)),
    Bar("each", 1.1, (AXEL, RCLONE, ARIA2)),
    Bar("hosts", 1.1, (ALONE,), row=BESIDE),
    Bar("unpack", 1.5, (TAR,)),
    Bar("arriving", 1.35, (PACKED, TAR), longest=True, slack=1.0),
    Bar("tar.gz", 0.7, (f"{TAR} -z",)),
    Bar("zip", 0.7, (UNZIP,)),
    Bar("link", 2.0, (CP,)),
    Most("link", 200.0, WARM, "a fetch of what is there"),
    Bar("plan", 2.0, (FIND,)),
    Most("plan", 500.0, "MiB", "peak memory", row=DS),
    Most("usage", 2.0, SECONDS, "usage"),
    Bar("verify", 1 / (0.9 * (os.cpu_count() or 1)), (HASHLIB,), row=VERIFY_FULL),
    Bar("verify", 1 / 3.5, (VERIFY_FULL,), row=VERIFY_QUICK),
    Bar("lookup", 1.2, (sharing.FEW,), row=sharing.MANY),
    Bar("lookup-http", 1.2, (sharing.FEW,), row=sharing.MANY),
    Most("search", 300.0, sharing.MILLISECONDS, "search"),
    Most("sync", 200.0, sharing.MILLISECONDS, "sync"),
    Bar("remote", 1.1, (sharing.FROM_REMOTE,)),
    Bar("publish", 1.1, (publishing.RCLONE_S3,)),
    Most("publish", 2.0, SECONDS, "publishing one dataset more"),
    Bar("drop-in", 0.5, (POOCH_LOOP,), row=dropins.LOOP),
    Most("drop-in-warm", 1000.0, dropins.MICROSECONDS, "a fetch of 1 GiB that is there"),
    Bar("read", 1 / 0.9, (reading.PLAIN,), row=reading.FSSPEC),
    Bar("cifar10", 0.5, (vision.PLAIN,), row=vision.COLD),
    Bar("cifar10", 0.2, (vision.PLAIN,), row=vision.AGAIN),
    Most("cifar10", 0.0, vision.BYTES, "bytes downloaded by a second project"),
    Most("arriving", 150.0, "MiB", "peak memory with hard links", row=PROJECT),
)


def judge(tables: Mapping[str, Table]) -> list[Verdict]:
    """Every bar, with what the tables say."""
    verdicts = [
        bar.verdict(tables[bar.table]) if bar.table in tables else Verdict(bar.table, str(bar))
        for bar in BARS
    ]
    downloads = [table for key, table in tables.items() if key not in _LOCAL]
    return [*verdicts, _memory([row for table in downloads for row in table.rows])]


def _memory(rows: Sequence[Row]) -> Verdict:
    ours = [row.median("memory") for row in rows if row.role == DSCACHE and row.memory]
    measured, met = (f"{max(ours):.0f} MiB", max(ours) <= _MOST_MEMORY) if ours else ("-", None)
    return Verdict("peak memory of all downloads", f"≤ {_MOST_MEMORY:.0f} MiB", measured, met)
