"""How hard a host may be asked: how many connections at once, and when to leave it alone.

Pure arithmetic on times that the caller gives. A host that says it is busy gets half as many
connections, and one more for each round of answers that come well (additive increase,
multiplicative decrease, as TCP does it).
"""

from __future__ import annotations

from dataclasses import dataclass

#: Refusals within this many seconds are one: they answer requests that were sent together.
_AT_ONCE = 1.0


@dataclass(slots=True)
class Host:
    """One host of a call. Times are those of `time.monotonic()`."""

    allowed: float
    active: int = 0
    resting_until: float = 0.0
    cut_at: float = float("-inf")

    @property
    def is_full(self) -> bool:
        """True while no further connection may be opened."""
        return self.active >= int(self.allowed)

    def is_busy(self, now: float, rest: float) -> None:
        """It has asked to come back in `rest` seconds."""
        self.resting_until = max(self.resting_until, now + rest)
        if now - self.cut_at > _AT_ONCE:
            self.cut_at = now
            self.allowed = max(1.0, self.allowed / 2)

    def is_well(self, most: int) -> None:
        """It has answered; in all it never gets more than `most` connections."""
        self.allowed = min(float(most), self.allowed + 1 / self.allowed)
