"""Pacing: how fast several threads together may read, and what ends them."""

from __future__ import annotations

import threading

from dscache.transfer.rate import RateLimit


class Stopped(Exception):
    """Nobody waits for the result any more."""


class Pace:
    """Counts what threads read, and keeps them to a rate.

    Attributes:
        done: bytes so far.
    """

    def __init__(self, rate: int) -> None:
        self.done = 0
        self._limit = RateLimit(rate)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def __call__(self, count: int) -> None:
        """Note that so many bytes were read; waits as long as they were too many.

        Raises:
            Stopped: after `stop`, also while it waits.
        """
        with self._lock:
            self.done += count
            self._limit.spend(count)
            pause = self._limit.pause()
        if self._stopped.wait(pause) if pause else self._stopped.is_set():
            raise Stopped

    @property
    def is_stopped(self) -> bool:
        """True after `stop`."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End every thread at its next read."""
        self._stopped.set()
