"""What dscache is meant to reach beside its peers, and what a run says about it: plain facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.measuring import DSCACHE, Row, Table
from tests.bench.programs import (
    ARIA2,
    ARIA2_MANY,
    AXEL,
    CURL,
    CURL_HASH,
    CURL_MANY,
    DS,
    POOCH,
    POOCH_LOOP,
    RCLONE,
)
from tests.bench.transfers import ALONE, BESIDE

_MOST_MEMORY = 100.0


@dataclass(frozen=True)
class Bar:
    """`figure` of dscache's row in a table is at most `limit` times the best of the others."""

    table: str
    limit: float
    others: tuple[str, ...]
    figure: str = "seconds"
    row: str = DS

    def __str__(self) -> str:
        what = "CPU seconds of " if self.figure == "cpu" else ""
        best = "the best of " if len(self.others) > 1 else ""
        return f"≤ {self.limit:g} x {what}{best}{', '.join(self.others)}"

    def value(self, table: Table) -> float | None:
        """The ratio that was measured."""
        ours = table.row(self.row)
        theirs = [row for name in self.others if (row := table.row(name))]
        if ours is None or not theirs:
            return None
        return ours.median(self.figure) / min(row.median(self.figure) for row in theirs)


BARS = (
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
)


@dataclass(frozen=True)
class Verdict:
    """One bar and what became of it."""

    where: str
    wanted: str
    measured: str
    met: bool | None

    @property
    def word(self) -> str:
        """In a table."""
        return {True: "met", False: "not met", None: "not measured"}[self.met]


def judge(tables: Mapping[str, Table]) -> list[Verdict]:
    """Every bar, with what the tables say."""
    verdicts = []
    for bar in BARS:
        table = tables.get(bar.table)
        value = table and bar.value(table)
        title = table.title if table else bar.table
        measured = f"{value:.2f} x" if value else "-"
        verdicts.append(Verdict(title, str(bar), measured, value <= bar.limit if value else None))
    return [*verdicts, _memory([row for table in tables.values() for row in table.rows])]


def _memory(rows: Sequence[Row]) -> Verdict:
    ours = [row.median("memory") for row in rows if row.role == DSCACHE and row.memory]
    measured, met = (f"{max(ours):.0f} MiB", max(ours) <= _MOST_MEMORY) if ours else ("-", None)
    return Verdict("peak memory, all of these", f"≤ {_MOST_MEMORY:.0f} MiB", measured, met)
