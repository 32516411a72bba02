"""Tables on the terminal, and the measured parts of docs/performance.md.

The page's prose is written by hand; what stands between two markers is written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.bench.bars import Verdict, judge
from tests.bench.measuring import DSCACHE, Row, Table
from tests.bench.results import Results

_HEAD = ("", "verified", "median s", "least", "most", "runs", "CPU s", "MiB", "dscache is")


def show(table: Table) -> None:
    """Print one table."""
    print(f"\n{table.title}")
    if table.rows:
        _show_lines([_HEAD, *_lines(table)])
    for fact in table.facts:
        print(f"  {fact}")


def show_bars(tables: Mapping[str, Table]) -> None:
    """Print what was to be reached."""
    print("\nbars")
    _show_lines([(each.word, each.measured, each.wanted, each.where) for each in judge(tables)])


def _show_lines(lines: Sequence[Sequence[str]]) -> None:
    """Columns side by side; a line with fewer cells than the first has words in its last one."""
    full = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    widths[0] = max(len(line[0]) for line in lines)
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        print(f"  {'  '.join(cells)}".rstrip())


def _lines(table: Table) -> list[tuple[str, ...]]:
    ours = next((row for row in table.rows if row.role == DSCACHE and row.seconds), None)
    return [_line(row, ours) for row in table.rows]


def _line(row: Row, ours: Row | None) -> tuple[str, ...]:
    verified = "yes" if row.verifies else "no"
    if row.skipped:
        return (row.name, verified, f"SKIPPED: {row.skipped}")
    return (
        row.name,
        verified,
        _three_digits(row.median()),
        _three_digits(min(row.seconds)),
        _three_digits(max(row.seconds)),
        str(len(row.seconds)),
        _three_digits(row.median("cpu")),
        f"{row.median('memory'):.0f}",
        f"{ours.median() / row.median():.2f} x" if ours else "",
    )


def _three_digits(value: float) -> str:
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def write(page: Path, results: Results) -> None:
    """Put the figures into the page, between its markers."""
    text = page.read_text("utf-8")
    for name, lines in (
        ("bars", _bars(judge(results.tables))),
        ("machine", _machine(results.machine)),
        ("tables", _tables(results)),
    ):
        text = _replaced(text, name, "\n".join(lines))
    page.write_text(text, "utf-8")


def _replaced(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}: written by make bench -->", f"<!-- {name}: end -->"
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}\n\n{content}\n\n{end}", text, flags=re.DOTALL)


def _bars(verdicts: Iterable[Verdict]) -> list[str]:
    head = ("Work", "dscache is to take", "it takes", "")
    return _markdown([head, *((e.where, e.wanted, e.measured, e.word) for e in verdicts)])


def _machine(facts: Mapping[str, str]) -> list[str]:
    return _markdown([("", ""), *facts.items()])


def _tables(results: Results) -> list[str]:
    lines = []
    for table in results.tables.values():
        lines += [f"### {_capital(table.title)}", ""]
        if table.rows:
            lines += [*_markdown([_HEAD, *_lines(table)]), ""]
        lines += [*(f"- {fact}" for fact in table.facts), ""] if table.facts else []
        lines += [f"Measured on {results.dates[table.key]}.", ""]
    return lines[:-1]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    full = ([*row, *[""] * (len(rows[0]) - len(row))] for row in rows)
    head, *others = (f"| {' | '.join(row)} |" for row in full)
    return [head, "|---" * len(rows[0]) + "|", *others]
