"""The rate limit of a call: a budget of bytes that grows with time."""

from __future__ import annotations

import time

#: What may be read at once after a pause, in seconds of the rate.
_BURST = 0.02


class RateLimit:
    """A budget of bytes that grows with time. Not reading is enough: TCP slows the sender down."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free = 0.0
        self._last = time.monotonic()

    @property
    def is_set(self) -> bool:
        """True if there is a limit."""
        return self._rate > 0

    def spend(self, count: int) -> None:
        self._free -= count

    def pause(self) -> float:
        """Seconds until bytes may be read again; 0 for now."""
        if not self._rate:
            return 0.0
        now = time.monotonic()
        self._free = min(self._free + (now - self._last) * self._rate, self._rate * _BURST)
        self._last = now
        return max(0.0, -self._free / self._rate)
