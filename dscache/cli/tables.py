"""Plain tables and bars for people. Colour and lines carry no meaning, so they can be left out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import click

from dscache.quantities import show_size
from dscache.sheets import Table, aligned

_BAR = 24


def columns(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """A table on stdout; the last column is cut at the width of the terminal."""
    if not rows:
        return
    table = Table("", tuple(heads), tuple(map(tuple, rows)), tuple(right))
    room = shutil.get_terminal_size((100, 24)).columns if _is_terminal() else None
    for number, line in enumerate(aligned(table, len(rows))):
        shown = line if room is None or len(line) <= room else f"{line[: room - 1]}…"
        click.echo(click.style(shown, bold=True) if number == 0 else shown)


def bars(rows: Sequence[tuple[str, int, str]]) -> None:
    """A bar for each (name, bytes, note), relative to the largest."""
    if not rows:
        return
    most = max(size for _, size, _ in rows) or 1
    width = max(len(name) for name, _, _ in rows)
    for name, size, note in rows:
        bar = "█" * max(1, round(_BAR * size / most))
        click.echo(f"{name:<{width}}  {bar:<{_BAR}}  {show_size(size):>8}  {note}".rstrip())


def _is_terminal() -> bool:
    return sys.stdout.isatty()
