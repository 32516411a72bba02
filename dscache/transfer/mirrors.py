"""Which of its sources a long file should come from: the fastest, once that has been measured.

The order of the registry decides as long as nothing is known, and between sources that are much
the same. Others are measured only when a file will take a while, by pieces of it that have to be
fetched anyway.
"""

from __future__ import annotations

from collections.abc import Iterable

from dscache.transfer.hosts import Host

#: A source must be this much faster to be taken before its turn.
_FASTER = 1.5
#: A connection that is this much slower than the fastest source is replaced, unless it is done
#: within `SOON` seconds anyway.
_MUCH_FASTER = 4.0
SOON = 2.0


class Mirrors:
    """The sources of one download with their hosts, in the order of the registry."""

    def __init__(self, hosts: dict[str, Host]) -> None:
        self.hosts = hosts

    def fastest(self, urls: Iterable[str], now: float) -> str | None:
        """That of `urls` from which the next bytes should come; None if all of them rest."""
        best = None
        for url in urls:
            if self.hosts[url].resting_until > now:
                continue
            if best is None or self._is_faster(url, best):
                best = url
        return best

    def unmeasured(self, urls: Iterable[str], now: float) -> str | None:
        """The first of `urls` of whose host nothing is known, and that is not being measured."""
        for url in urls:
            at = self.hosts[url]
            if at.pace is None and not at.long and at.resting_until <= now:
                return url
        return None

    def _is_faster(self, url: str, other: str) -> bool:
        pace, known = self.hosts[url].pace, self.hosts[other].pace
        return pace is not None and known is not None and pace > _FASTER * known


def lags(pace: float, left: int, best: float) -> bool:
    """True for a connection that should give way: `left` bytes of its span are missing."""
    return pace * _MUCH_FASTER < best and left > pace * SOON
