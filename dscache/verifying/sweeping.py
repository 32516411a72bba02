"""Sweeping: every check is made once, by as many threads as there are cores.

Threads take the next check from one line, so that none waits for another. The thread that called
tells how far it is, writes the state, and ends the others when it is interrupted.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue

from dscache.digest import Reader
from dscache.events import Checked, Emit
from dscache.store import Store
from dscache.verifying.checking import Check, Finding, Position, Unit, finding, is_changed
from dscache.verifying.pacing import Pace, Stopped
from dscache.verifying.resuming import Progress, State

#: How often progress is told and the state is written, in seconds.
_TELL_EVERY, _SAVE_EVERY = 0.1, 3.0


class Sweep:
    """The checks of some units, made once.

    Attributes:
        files: those that have been looked at, in an interrupted sweep before this one too.
        findings: what is wrong, by path.
    """

    def __init__(self, store: Store, units: Sequence[Unit], left: State | None) -> None:
        self.files = 0
        self.findings: dict[str, Finding] = {}
        self._store = store
        self._left = left
        self._line = self._checks(units)
        self._total = sum(each.files for each in units)
        self._size = sum(each.size for each in units)
        self._skipped = 0
        self._lock = threading.Lock()
        self._last: Position | None = left.last if left else None
        self._unfinished = set(left.unfinished if left else ())

    def run(self, pace: Pace, progress: Progress, emit: Emit, *, full: bool) -> None:
        """Make all checks. If it is interrupted, its state is written."""
        count = os.cpu_count() or 1
        # Waited for without the locks of futures and events: these are taken in Python, where an
        # interrupt can leave one taken, and the thread that wants it would never end.
        ended: SimpleQueue[Future[None]] = SimpleQueue()
        with ThreadPoolExecutor(count, thread_name_prefix="dscache-verify") as executor:
            try:
                for _ in range(count):
                    executor.submit(self._work, pace, full).add_done_callback(ended.put)
                self._attend(count, ended, pace, progress, emit)
            except BaseException:
                pace.stop()
                executor.shutdown()
                self._save(progress)
                raise

    def _attend(
        self,
        working: int,
        ended: SimpleQueue[Future[None]],
        pace: Pace,
        progress: Progress,
        emit: Emit,
    ) -> None:
        saved = time.monotonic()
        while working:
            with suppress(Empty):
                ended.get(timeout=_TELL_EVERY).result()
                working -= 1
            emit(Checked(self.files, self._total, self._skipped + pace.done, self._size))
            if time.monotonic() - saved > _SAVE_EVERY:
                self._save(progress)
                saved = time.monotonic()

    def _work(self, pace: Pace, full: bool) -> None:
        reader = Reader(pace)
        try:
            while check := self._next(pace):
                self._done(check, check.problem(reader, full=full))
        except Stopped:
            return

    def _next(self, pace: Pace) -> Check | None:
        with self._lock:
            check = None if pace.is_stopped else next(self._line, None)
            if check:
                position = check.position
                self._unfinished.add(position)
                self._last = max(self._last or position, position)
            return check

    def _done(self, check: Check, problem: str) -> None:
        with self._lock:
            self._unfinished.discard(check.position)
            self.files += check.counts or bool(problem)
            if problem:
                self.findings[check.path] = finding(check, problem)

    def _checks(self, units: Iterable[Unit]) -> Iterator[Check]:
        """What is still to be looked at; of the rest, what was found before."""
        left = self._left
        found = {each.path: each for each in left.findings} if left else {}
        for unit in units:
            checks = unit.checks(self._store)
            if left is None or is_changed(unit.described_by(self._store), left.began):
                yield from checks
                continue
            for check in checks:
                if not left.has_done(check):
                    yield check
                    continue
                earlier = found.get(check.path)
                self.files += check.counts or bool(earlier)
                self._skipped += check.size
                if earlier:
                    self.findings[check.path] = earlier

    def _save(self, progress: Progress) -> None:
        with self._lock:
            last, unfinished = self._last, tuple(sorted(self._unfinished))
            findings, files = tuple(self.findings.values()), self.files
        if last:
            progress.save(last, unfinished, findings, files)
