"""A display: when which picture of a tally is drawn, and what is left at the end.

No thread: a picture is drawn when an event comes and it is time for one. So what goes before a
silence (a wait, a retry) is drawn at once, as long as there are not too many.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from dscache.events import Emit, Event, Notice, Retrying, Waiting
from dscache.progress.tally import Tally

#: Seconds between two pictures; the first one comes so long after the first event, so that what is
#: done at once is not drawn at all.
_EVERY = 0.2
#: Pictures in any second.
_MOST = 10
_PRESSING = (Notice, Retrying, Waiting)


class Face(Protocol):
    """Where pictures are shown."""

    def draw(self, tally: Tally, notices: list[str]) -> None:
        """Show how it stands, in the place of what was drawn before."""

    def end(self, line: str, notices: list[str]) -> None:
        """Leave one line, or nothing of it if that is empty, and no picture."""


class Display:
    """The progress of one or more calls on one face. A context manager that gives `take`."""

    def __init__(self, face: Face, clock: Callable[[], float] = time.monotonic) -> None:
        self._face = face
        self._tally = Tally(clock)
        self._pace = _Pace(clock)
        self._notices: list[str] = []

    def __enter__(self) -> Emit:
        return self.take

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        how = "" if kind is None else "failed" if issubclass(kind, Exception) else "stopped"
        self._face.end(self._tally.ended(how), self._notices)

    def take(self, event: Event) -> None:
        """Take one event, and draw if it is time to."""
        self._tally.take(event)
        if isinstance(event, Notice):
            self._notices.append(event.message)
        if self._pace.is_due(isinstance(event, _PRESSING)):
            self._face.draw(self._tally, self._notices)


class _Pace:
    """Says when a picture may be drawn, and counts on it that it is."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: float | None = None
        self._drawn: deque[float] = deque()

    def is_due(self, pressing: bool) -> bool:
        """True if it is time; pressing ones may come close to each other, but not many of them."""
        now = self._clock()
        if pressing:
            while self._drawn and now - self._drawn[0] >= 1:
                self._drawn.popleft()
            due = len(self._drawn) < _MOST
        elif self._last is None:
            self._last, due = now, False
        else:
            due = now - self._last >= _EVERY
        if due:
            self._last = now
            self._drawn.append(now)
        return due
