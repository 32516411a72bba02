"""The tally: the numbers behind every picture of progress.

Events change numbers and no more, so that thousands of small files cost nothing. What is drawn of
them, and when, is the business of whoever draws. It knows no terminal and no notebook.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from dscache.events import (
    Advanced,
    Checked,
    Event,
    Extracted,
    Failed,
    Finished,
    Idle,
    Linked,
    Notice,
    Planned,
    Retrying,
    Started,
    Waiting,
)
from dscache.quantities import show_duration, show_size

#: The speed is that of the last seconds.
_WINDOW = 5.0
_UNCHECKED = Checked(0, 0, 0, 0)


class Bar(msgspec.Struct, frozen=True):
    """One bar: of what, how far, of how much (None: nobody knows), and that in words."""

    label: str
    done: int
    of: int | None
    text: str


class _File:
    """One file that is arriving."""

    def __init__(self, path: str, size: int | None, done: int) -> None:
        self.path = path
        self.size = size
        self.done = done
        self.note = ""


class Tally:
    """What the events so far come to. `clock` gives seconds.

    Attributes:
        note: what is waited for; empty while something goes on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.note = ""
        self._clock = clock
        self._began: float | None = None
        self._files: dict[str, _File] = {}
        self._planned = self._finished = self._failed = 0
        self._bytes = self._of = 0
        #: Bytes that earlier attempts left: they count as done, and not for the speed.
        self._kept = 0
        self._unpacking: dict[str, Extracted] = {}
        self._linked: Linked | None = None
        self._checked = _UNCHECKED
        self._past: deque[tuple[float, int]] = deque()

    def take(self, event: Event) -> None:
        """Change the numbers."""
        if not isinstance(event, (Idle, Notice)):
            self.note = ""
        match event:
            case Planned(files, size):
                self._begin()
                self._planned += files
                self._of += size
            case Started():
                self._begin()
                self._start(event)
            case Advanced(key, done) if key in self._files:
                self._files[key].done = done
                self._files[key].note = ""
            case Retrying(key, reason, delay) if key in self._files:
                self._files[key].note = f"{reason}; again in {delay:.0f} s"
            case Finished(key, size):
                self._files.pop(key, None)
                self._finished += 1
                self._bytes += size
            case Failed(key):
                file = self._files.pop(key, None)
                self._failed += 1
                self._kept -= file.done if file else 0
            case Waiting(what, holder):
                self.note = f"waiting for {what}: {holder} has the lock"
            case Extracted(path, done, size) if done < size:
                self._unpacking[path] = event
            case Extracted(path):
                self._unpacking.pop(path, None)
            case Linked():
                self._linked = event
            case Checked():
                self._check(event)
            case _:
                pass

    def bars(self, most: int) -> list[Bar]:
        """What is at work now, the total, and what is being linked; of files at most so many."""
        # Copies, since some draw in a thread of their own.
        files = [_of_file(file) for file in list(self._files.values())[:most]]
        archives = [_of_archive(each) for each in list(self._unpacking.values())]
        return [
            *files,
            *archives,
            self._total(),
            *([_of_links(self._linked)] if self._linked else []),
        ]

    @property
    def more(self) -> int:
        """How many files are arriving."""
        return len(self._files)

    def summary(self) -> str:
        """How far all of it is, in a line."""
        total = self._total()
        return f"{total.label}  {total.text}" if self._planned else total.text

    def ended(self, how: str = "") -> str:
        """What came of it, in a line, behind a word for how it ended; empty if that is nothing."""
        if self._began is None:
            return ""
        files = f"{self._finished:,}"
        if self._finished < self._planned:
            files += f" of {self._planned:,}"
        kinds = "file" if self._finished == self._planned == 1 else "files"
        failed = f", {self._failed:,} failed" if self._failed else ""
        took = show_duration(self._clock() - self._began)
        start = f"{how}: " if how else ""
        return f"{start}{files} {kinds}, {show_size(self._here())}, {took}{failed}"

    def _begin(self) -> None:
        if self._began is None:
            self._began = self._clock()

    def _start(self, event: Started) -> None:
        before = self._files.get(event.key)
        self._kept += event.done - (before.done if before else 0)
        self._files[event.key] = _File(event.path, event.size, event.done)

    def _check(self, event: Checked) -> None:
        self._begin()
        before = self._checked
        if event.files < before.files:  # another verification
            before = _UNCHECKED
        if before is _UNCHECKED:  # it may go on where an earlier one was interrupted
            self._kept += event.done
        self._finished += event.files - before.files
        self._planned += event.total - before.total
        self._bytes += event.done - before.done
        self._of += event.size - before.size
        self._checked = event

    def _here(self) -> int:
        return self._bytes + sum(file.done for file in list(self._files.values()))

    def _total(self) -> Bar:
        label = f"{self._finished:,} of {self._planned:,} files" if self._planned else "total"
        here = self._here()
        return Bar(label, here, self._of or None, self._words(here))

    def _words(self, here: int) -> str:
        speed = self._speed(here - self._kept)
        text = show_size(here)
        if self._of:
            text += f" / {show_size(self._of)}"
        if speed > 0:
            text += f"  {show_size(speed)}/s"
            if self._of > here:
                text += f"  {_clock_of((self._of - here) / speed)} left"
        return text

    def _speed(self, arrived: int) -> float:
        now = self._clock()
        self._past.append((now, arrived))
        while now - self._past[0][0] > _WINDOW:
            self._past.popleft()
        began, there = self._past[0]
        return (arrived - there) / (now - began) if now > began else 0.0


def _of_file(file: _File) -> Bar:
    known = f" / {show_size(file.size)}" if file.size is not None else ""
    return Bar(file.path, file.done, file.size, file.note or f"{show_size(file.done)}{known}")


def _of_archive(event: Extracted) -> Bar:
    text = f"{show_size(event.done)} / {show_size(event.size)}"
    return Bar(f"unpacking {event.path}", event.done, event.size, text)


def _of_links(event: Linked) -> Bar:
    known = f" of {event.total:,}" if event.total else ""
    label = f"linking into {event.folder}"
    return Bar(label, event.done, event.total or None, f"{event.done:,}{known}")


def _clock_of(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
