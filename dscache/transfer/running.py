"""What the pool knows of the exchanges that are under way, and of the long downloads they serve."""

from __future__ import annotations

import msgspec

from dscache.sources.exchange import Exchange
from dscache.transfer.download import Download
from dscache.transfer.hosts import Host
from dscache.transfer.mirrors import Mirrors
from dscache.transfer.pieces import Piece

#: What an exchange brings its bytes to: the download itself, which is its lead, or a piece of it.
Taker = Download | Piece


class Course(msgspec.Struct, eq=False):
    """What is known of a long download, or one of unknown length, while it is under way.

    Attributes:
        count: bytes that have come since `compared`, when its sources were last looked at.
    """

    mirrors: Mirrors
    secured: float
    compared: float
    count: int = 0


class Running(msgspec.Struct, eq=False):
    """One exchange: of a download's lead, or of a piece.

    Attributes:
        since: when it was asked for.
        is_long: counted among its host's connections for long files.
        count: bytes that have come since `measured`, when `pace` was last looked at.
        pace: bytes per second of late; 0 before it was measured.
    """

    exchange: Exchange
    host: Host
    course: Course | None
    since: float
    is_long: bool
    measured: float
    told: float = 0.0
    count: int = 0
    pace: float = 0.0

    def measure(self, now: float) -> float:
        """Look at the pace anew: half of it is what it was before, since bytes come in bursts."""
        pace = self.count / max(now - self.measured, 0.001)
        self.pace = pace if self.measured == self.since else (self.pace + pace) / 2
        self.count, self.measured = 0, now
        return self.pace


def download_of(taker: Taker) -> Download:
    """The download that gets the bytes in the end."""
    return taker if isinstance(taker, Download) else taker.download
