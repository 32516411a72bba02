"""Progress on the terminal: a line per active file, a total, speed and time left.

Drawn on stderr, and only if that is a terminal. Events only change numbers; the picture is made
when it is drawn, a few times a second, so that thousands of small files cost nothing.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dscache.cli import say
from dscache.events import (
    Advanced,
    Checked,
    Emit,
    Event,
    Extracted,
    Failed,
    Finished,
    Linked,
    Notice,
    Planned,
    Retrying,
    Started,
    Waiting,
)
from dscache.quantities import show_size

if TYPE_CHECKING:
    from rich.console import RenderableType

_PER_SECOND = 8
#: The speed is that of the last seconds.
_WINDOW = 5.0


@contextmanager
def shown(wanted: bool) -> Iterator[Emit]:
    """Yield what events are to be given to; draws them while the block runs."""
    if not wanted or not sys.stderr.isatty():
        yield say.notices
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    state = _State()
    with Live(
        get_renderable=lambda: state.picture(console.width, console.height),
        console=console,
        refresh_per_second=_PER_SECOND,
        transient=True,
    ) as live:

        def emit(event: Event) -> None:
            state.take(event)
            if isinstance(event, Notice):
                live.console.print(f"note: {event.message}", markup=False, highlight=False)

        yield emit


class _File:
    """One file that is arriving."""

    def __init__(self, path: str, size: int | None, done: int) -> None:
        self.path = path
        self.size = size
        self.done = done
        self.note = ""


class _State:
    """The numbers behind the picture."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._planned = 0
        self._finished = 0
        self._bytes = 0
        self._of = 0
        self._note = ""
        self._unpacking: dict[str, Extracted] = {}
        self._linked: Linked | None = None
        self._past: deque[tuple[float, int]] = deque()

    def take(self, event: Event) -> None:
        """Change the numbers."""
        match event:
            case Planned(files, size):
                self._planned += files
                self._of += size
            case Started(key, path, size, done):
                self._files[key] = _File(path, size, done)
                self._note = ""
            case Advanced(key, done) if key in self._files:
                self._files[key].done = done
                self._files[key].note = ""
            case Retrying(key, reason, delay) if key in self._files:
                self._files[key].note = f"{reason}; again in {delay:.0f} s"
            case Finished(key, size):
                self._files.pop(key, None)
                self._finished += 1
                self._bytes += size
            case Failed(key, _):
                self._files.pop(key, None)
            case Waiting(what, holder):
                self._note = f"waiting for {what}: {holder} has the lock"
            case Extracted(path, done, size) if done < size:
                self._unpacking[path] = event
            case Extracted(path):
                self._unpacking.pop(path, None)
            case Linked():
                self._linked = event
            case Checked(files, total, done, size):
                self._finished, self._planned = files, total
                self._bytes, self._of = done, size
            case _:
                pass

    def picture(self, width: int, height: int) -> RenderableType:
        """What is drawn now."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(20, width - 60))
        table.add_column(width=20)
        table.add_column(justify="right", no_wrap=True)
        for file in list(self._files.values())[: max(1, height - 4)]:
            known = f" / {show_size(file.size)}" if file.size is not None else ""
            bar = ProgressBar(total=file.size, completed=file.done, pulse=file.size is None)
            state = file.note or f"{show_size(file.done)}{known}"
            table.add_row(Text(file.path), bar, Text(state))
        for each in list(self._unpacking.values()):
            bar = ProgressBar(total=each.size, completed=each.done)
            state = f"{show_size(each.done)} / {show_size(each.size)}"
            table.add_row(Text(f"unpacking {each.path}"), bar, Text(state))
        here = self._bytes + sum(file.done for file in list(self._files.values()))
        total = ProgressBar(total=self._of or None, completed=here, pulse=not self._of)
        label = f"{self._finished} of {self._planned} files" if self._planned else "total"
        table.add_row(Text(label), total, Text(self._summary(here)))
        if linked := self._linked:
            known = f" of {linked.total:,}" if linked.total else ""
            bar = ProgressBar(
                total=linked.total or None, completed=linked.done, pulse=not linked.total
            )
            label = f"linking into {linked.folder}"
            table.add_row(Text(label), bar, Text(f"{linked.done:,}{known}"))
        if self._note:
            table.add_row(Text(self._note), "", "")
        return table

    def _summary(self, here: int) -> str:
        speed = self._speed(here)
        text = f"{show_size(here)}"
        if self._of:
            text += f" / {show_size(self._of)}"
        if speed:
            text += f"  {show_size(speed)}/s"
            if self._of > here:
                left = int((self._of - here) / speed)
                text += f"  {left // 60}:{left % 60:02d} left"
        return text

    def _speed(self, here: int) -> float:
        now = time.monotonic()
        self._past.append((now, here))
        while now - self._past[0][0] > _WINDOW:
            self._past.popleft()
        began, there = self._past[0]
        return (here - there) / (now - began) if now > began else 0.0
