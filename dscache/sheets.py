"""Sheets: what a result says, as text for a terminal and as HTML for a notebook.

A sheet is made from the fields of a result: facts, and a table for each field that holds rows. It
knows fields by their names (`bytes` is a size, `last_used` a time), and no result by its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from dscache.quantities import show_size

#: Rows of a table that are shown, as text and in a notebook.
_LINES, _ROWS = 40, 100

#: Fields that nobody reads on a screen: programs do.
_HIDDEN = frozenset(
    [
        "base",
        "checksums",
        "code",
        "content",
        "manifest",
        "manual",
        "pins",
        "target",
        "unpack_to",
        "urls",
    ]
)
_NAME = ("registry", "name", "version")

_WORDS = {
    "archives_dropped": "archives dropped",
    "bytes": "size",
    "freed_bytes": "frees",
    "held_by": "held by",
    "hits": "fetches that found all",
    "last_used": "last used (UTC)",
    "registry_url": "registry",
    "saved": "not downloaded again",
    "saved_bytes": "saved by sharing",
    "shared_bytes": "shared",
}


# Colours are those of the notebook, light or dark.
_TABLE = '<table style="border-collapse:collapse;margin:0 0 6px;color:inherit">'
_CELL = "padding:1px 14px 1px 0;text-align:left;vertical-align:top"
_RIGHT = "padding:1px 14px 1px 0;text-align:right;vertical-align:top"


class Table(msgspec.Struct, frozen=True):
    """Rows under heads; `right` are the columns of numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()


class Sheet(msgspec.Struct, frozen=True):
    """What one result says."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()

    def text(self) -> str:
        """For a terminal. Of long tables only the first rows."""
        width = max((len(name) for name, _ in self.facts), default=0)
        lines = [self.title, *(f"  {name:<{width}}  {value}" for name, value in self.facts)]
        for table in self.tables:
            lines += [f"  {table.title} ({len(table.rows):,})"]
            lines += [f"    {line}" for line in aligned(table, _LINES)]
            lines += [f"    {more}" for more in _more(table, _LINES)]
        return "\n".join(map(printable, lines))

    def html(self) -> str:
        """For a notebook, escaped."""
        from html import escape

        facts = "".join(
            f'<tr><th style="{_CELL}">{escape(name)}</th>'
            f'<td style="{_CELL}">{escape(value)}</td></tr>'
            for name, value in self.facts
        )
        tables = "".join(_html_table(table, escape) for table in self.tables)
        return f"<div><strong>{escape(self.title)}</strong>{_TABLE}{facts}</table>{tables}</div>"


def aligned(table: Table, most: int) -> Iterator[str]:
    """The lines of a table, its heads first; at most so many rows."""
    rows = [table.heads, *table.rows[:most]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if place in table.right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def sheet_of(result: object) -> Sheet:
    """The sheet of a result: of its fields, and of those of what it holds."""
    facts: dict[str, str] = {}
    tables: list[Table] = []
    _gather(result, facts, tables)
    return Sheet(type(result).__name__, tuple(facts.items()), tuple(tables))


def _gather(value: object, facts: dict[str, str], tables: list[Table]) -> None:
    fields = _fields(value)
    if set(_NAME) <= set(fields):
        facts["dataset"] = _full_name(value)
        fields = [name for name in fields if name not in _NAME]
    for name in fields:
        each = getattr(value, name)
        if isinstance(each, tuple) and each and not isinstance(each[0], str):
            tables.append(_table(_WORDS.get(name, name), each))
        elif isinstance(each, msgspec.Struct):
            _gather(each, facts, tables)
        elif shown := _shown(name, each):
            facts[_WORDS.get(name, name)] = shown


def _table(title: str, rows: Sequence[object]) -> Table:
    names = _fields(rows[0])
    columns: list[tuple[str, list[str], bool]] = []
    if set(_NAME) <= set(names):
        columns.append(("dataset", [_full_name(row) for row in rows], False))
        names = [name for name in names if name not in _NAME]
    for name in names:
        cells = [_shown(name, getattr(row, name)) for row in rows]
        if any(cells):
            columns.append((_WORDS.get(name, name), cells, _is_size(name) or name in _COUNTS))
    heads, cells_of, numbers = zip(*columns, strict=True)
    right = tuple(place for place, number in enumerate(numbers) if number)
    return Table(title, tuple(heads), tuple(zip(*cells_of, strict=True)), right)


def _fields(value: object) -> list[str]:
    return [
        name
        for name in getattr(type(value), "__match_args__", ())
        if name not in _HIDDEN and not name.startswith("_")
    ]


_COUNTS = frozenset({"datasets", "hits"})


def _is_size(name: str) -> bool:
    return name in ("bytes", "downloaded", "saved", "size") or name.endswith("_bytes")


def _shown(name: str, value: Any) -> str:
    """A value of a field in words; empty where there is nothing to say."""
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    if _is_size(name):
        return show_size(value)
    if name == "last_used":
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())


def _full_name(value: Any) -> str:
    return f"{value.registry}/{value.name}@{value.version}"


def _html_table(table: Table, escape: Callable[[str], str]) -> str:
    def row(tag: str, cells: Iterable[str]) -> str:
        drawn = "".join(
            f'<{tag} style="{_RIGHT if place in table.right else _CELL}">{escape(cell)}</{tag}>'
            for place, cell in enumerate(cells)
        )
        return f"<tr>{drawn}</tr>"

    rows = "".join(row("td", cells) for cells in table.rows[:_ROWS])
    more = "".join(f"<div>{each}</div>" for each in _more(table, _ROWS))
    caption = f"{escape(table.title)} ({len(table.rows):,})"
    head = row("th", table.heads)
    return f"<div>{caption}</div>{_TABLE}<thead>{head}</thead><tbody>{rows}</tbody></table>{more}"


def _more(table: Table, shown: int) -> list[str]:
    more = len(table.rows) - shown
    return [f"and {more:,} more"] if more > 0 else []


def printable(line: str) -> str:
    """A line that cannot command the terminal."""
    return "".join(char if char.isprintable() else "?" for char in line)
