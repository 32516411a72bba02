"""Progress on the terminal: a line per active file, a total, speed and time left.

Drawn on stderr, and only if that is a terminal. Events only change numbers; the picture is made
when it is drawn, a few times a second, so that thousands of small files cost nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dscache.cli import say
from dscache.events import Emit, Event, Notice
from dscache.progress.tally import Tally

if TYPE_CHECKING:
    from rich.console import RenderableType

_PER_SECOND = 8


@contextmanager
def shown(wanted: bool) -> Iterator[Emit]:
    """Yield what events are to be given to; draws them while the block runs."""
    if not wanted or not sys.stderr.isatty():
        yield say.notices
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    tally = Tally()
    with Live(
        get_renderable=lambda: picture(tally, console.width, console.height),
        console=console,
        refresh_per_second=_PER_SECOND,
        transient=True,
    ) as live:

        def emit(event: Event) -> None:
            tally.take(event)
            if isinstance(event, Notice):
                live.console.print(f"note: {event.message}", markup=False, highlight=False)

        yield emit


def picture(tally: Tally, width: int, height: int) -> RenderableType:
    """What is drawn now on a terminal of that size."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(20, width - 60))
    table.add_column(width=20)
    table.add_column(justify="right", no_wrap=True)
    for bar in tally.bars(max(1, height - 4)):
        drawn = ProgressBar(total=bar.of, completed=bar.done, pulse=bar.of is None)
        table.add_row(Text(bar.label), drawn, Text(bar.text))
    if tally.note:
        table.add_row(Text(tally.note), "", "")
    return table
