"""A crew: threads that write files while the next ones are read."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Crew:
    """Does what it is given, on all cores; use it as a context manager.

    At its end all is done. The first error that any of it raises comes out of a later call.

    Attributes:
        is_alone: everything is done at once where it is given, since a download keeps the cores
            busy. (With two cores threads cost a fifth more then, and save a quarter else.)
    """

    def __init__(self, *, beside_a_download: bool = False) -> None:
        count = os.cpu_count() or 2
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="dscache-unpack")
        self._most = 2 * count
        self.is_alone = beside_a_download
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._executor.shutdown(cancel_futures=True)

    def do(self, work: Callable[[], None]) -> None:
        """Have it done; waits while much is still to be done."""
        if self.is_alone:
            work()
            return
        while len(self._pending) >= self._most:
            self._pending.popleft().result()
        self._pending.append(self._executor.submit(work))

    def wait(self) -> None:
        """Wait until all is done."""
        while self._pending:
            self._pending.popleft().result()
