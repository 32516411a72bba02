"""Hashing that trails a growing file: the bytes are read back while they are in the page cache.

One file hashes in one thread at a time; several files hash side by side. The network thread only
says how far the file has grown.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from io import FileIO

from dscache import disk
from dscache.digest import Sums

#: Begin only when this many bytes are there, so that threads do not change hands all the time.
_STEP = 4 << 20
_READ = 1 << 20
#: So little is hashed in no time, and another thread would take longer to begin.
_SHORT = 1 << 19


class Trail:
    """The hashes of one growing file."""

    def __init__(self, path: str, algorithms: Iterable[str], executor: Executor) -> None:
        self._path = path
        self._algorithms = tuple(algorithms)
        self._executor = executor
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._sums = Sums(self._algorithms)
        self._hashed = 0
        self._grown = 0
        self._complete = False
        self._stopped = False
        self._working = False
        self._last_run: Future[None] | None = None

    def grow(self, size: int) -> None:
        """The first `size` bytes of the file are final."""
        with self._lock:
            self._grown = size
            self._wake()

    def complete(self) -> None:
        """The file will not grow any more; the rest is hashed, however short."""
        with self._lock:
            self._complete = True
            if not (self._working or self._stopped) and self._grown - self._hashed <= _SHORT:
                self._hash_short()
            else:
                self._wake()

    def sums(self) -> Sums | None:
        """The hashes of a complete file; None as long as they are being computed.

        Raises:
            OSError: the file could not be read back.
        """
        with self._lock:
            if not self._working:
                return self._sums if self._complete else None
        if self._last_run and self._last_run.done():
            self._last_run.result()  # still "working": it was an error that ended it
        return None

    def stop(self) -> None:
        """Hash no further and wait until the thread has let go of the file."""
        with self._lock:
            self._stopped = True
        if self._last_run:
            wait([self._last_run])

    def restart(self) -> None:
        """Forget all hashes: the file begins again."""
        self.stop()
        self._begin()

    def _wake(self) -> None:
        if not self._working and self._has_work():
            self._working = True
            self._last_run = self._executor.submit(self._run)

    def _has_work(self) -> bool:
        left = self._grown - self._hashed
        return not self._stopped and (left >= _STEP or (self._complete and left > 0))

    def _hash_short(self) -> None:
        if left := self._grown - self._hashed:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(self._hashed)
                self._hash(file, disk.buffer(left), self._grown)

    def _run(self) -> None:
        buffer = disk.buffer(_READ)
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._hashed)
            while True:
                with self._lock:
                    self._working = self._has_work()
                    if not self._working:
                        return
                    target = self._grown
                self._hash(file, buffer, target)

    def _hash(self, file: FileIO, buffer: memoryview, target: int) -> None:
        while self._hashed < target and not self._stopped:
            count = file.readinto(buffer[: target - self._hashed])
            if not count:
                raise OSError(f"{self._path} became shorter while it was hashed")
            self._sums.update(buffer[:count])
            self._hashed += count


def hashing_threads() -> ThreadPoolExecutor:
    """Threads for hashing, as many as there are cores; none is started before it is needed."""
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="dscache-hash")
