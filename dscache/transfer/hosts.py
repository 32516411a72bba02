"""How hard a host may be asked: how many connections at once, and when to leave it alone.

Pure arithmetic on times that the caller gives. A host that says it is busy gets half as many
connections, and one more for each round of answers that come well (additive increase,
multiplicative decrease, as TCP does it). Small files may use all of them, since most of their time
is waiting for answers; connections for long files are opened only as far as they pay (`growth`).
"""

from __future__ import annotations

from dscache.transfer.growth import Growth

#: What a connection should take for a piece, in seconds, but no less than some round trips; and
#: bytes that are in no case too few or too many.
_SECONDS, _ROUND_TRIPS, _LONGEST = 0.5, 20, 16 << 20
_LAST_SECONDS, _LAST_ROUND_TRIPS, _SHORTEST = 0.1, 4, 64 << 10
#: Refusals within this many seconds are one: they answer requests that were sent together.
_AT_ONCE = 1.0


class Host:
    """One host of a call. Times are those of `time.monotonic()`.

    Attributes:
        allowed: connections that it may get now, in fractions; at first `most`.
        active: requests under way; `long` of them for long files, of which `at_work` have been
            answered.
        pace: bytes per second that one connection for a long file gets here; None if not known.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.growth = Growth(most)
        self.active = self.long = self.at_work = 0
        self.pace: float | None = None
        self.resting_until = 0.0
        self.allowed = float(most)
        self._cut_at = float("-inf")

    @property
    def is_full(self) -> bool:
        """True while no further connection may be opened."""
        return self.active >= int(self.allowed)

    @property
    def is_full_for_long(self) -> bool:
        """True while no further connection for a long file may be opened."""
        return self.long >= self.growth.wanted or self.is_full

    def share(self, left: int) -> int:
        """How long a piece should be, with `left` bytes to be shared by the connections here.

        Shorter towards the end, so that all are done at the same time; long enough that asking
        costs little; no longer, so that hashing, which goes in order, is never far behind.
        """
        pace, latency = self.growth.pace, self.growth.latency
        if not pace:
            return _LONGEST
        longest = int(pace * max(_SECONDS, _ROUND_TRIPS * latency))
        shortest = int(pace * max(_LAST_SECONDS, _LAST_ROUND_TRIPS * latency))
        length = max(shortest, min(longest, left // self.growth.wanted))
        return max(_SHORTEST, min(_LONGEST, length))

    def is_busy(self, now: float, rest: float) -> None:
        """It has asked to come back in `rest` seconds."""
        self.resting_until = max(self.resting_until, now + rest)
        if now - self._cut_at > _AT_ONCE:
            self._cut_at = now
            self.allowed = max(1.0, self.allowed / 2)
            self.growth.shrink(now)

    def is_well(self) -> None:
        """It has answered as it should."""
        self.allowed = min(float(self._most), self.allowed + 1 / self.allowed)
