"""Ahead: files that are fetched in the background, in their order, before they are used.

One after the other, so that the first has the whole connection. A thread fetches one file and ends;
it waits for no consumer, so that none is left when nobody asks for more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from pathlib import Path

from dscache.errors import DscacheError
from dscache.events import Emit, Event, to_log

#: Brings a file and says where it stands.
Fetch = Callable[[str, Emit], Path]


def fetched_ahead(
    fetch: Fetch, names: Iterable[str], ahead: int
) -> Generator[tuple[str, Path], None, None]:
    """Yield each name and where its file stands, while so many more are brought.

    What cannot be had is raised when its turn comes. Once this is closed, it has no thread.
    """
    left = iter(names)
    coming: deque[_Arrival] = deque()
    try:
        while True:
            for name in islice(left, ahead + 1 - len(coming)):
                coming.append(_Arrival(fetch, name, coming[-1] if coming else None))
            if not coming:
                return
            yield coming[0].name, coming[0].wait()
            coming.popleft()
    finally:
        for each in coming:
            each.stop()
        for each in coming:
            each.join()


class _Stopped(Exception):
    """Nobody waits for the file any more."""


class _Arrival:
    """One file that is fetched as soon as the one before it has come."""

    def __init__(self, fetch: Fetch, name: str, before: _Arrival | None) -> None:
        self.name = name
        self._fetch = fetch
        self._before = before
        self._is_wanted = True
        self._found: Path | DscacheError | None = None
        self._thread = threading.Thread(target=self._run, name=f"dscache-{name}")
        self._thread.start()

    def wait(self) -> Path:
        """Where the file stands; raises what its fetch raised."""
        self._thread.join()
        found = self._found
        if found is None:  # a fork has no such thread, and a mistake is to be raised in this one
            found = self._fetch(self.name, to_log)
        if isinstance(found, DscacheError):
            raise found
        return found

    def stop(self) -> None:
        """Want the file no longer; what has come of it is kept."""
        self._is_wanted = False

    def join(self) -> None:
        """Wait for the end of the thread, which is soon after `stop`."""
        self._thread.join()

    def _run(self) -> None:
        before, self._before = self._before, None
        if before:
            before.join()
        try:
            self._found = self._fetch(self.name, self._hear)
        except DscacheError as error:
            self._found = error
        except _Stopped:
            pass

    def _hear(self, event: Event) -> None:
        # A thread cannot be told that the program ends, but it sees that the main thread has.
        if not (self._is_wanted and threading.main_thread().is_alive()):
            raise _Stopped
        to_log(event)
