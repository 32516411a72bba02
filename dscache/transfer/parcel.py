"""Parcels: small files of known size and hash, asked for once and kept in memory.

Nearly every such file comes whole and right in one answer, and there may be very many of them. So
nothing is made of what a longer life needs: no state, no retries, no choice of sources. A parcel
knows only whether what has come is the file. What anything else means is for a download to say,
which takes the request over, with all that has come in answer.
"""

from __future__ import annotations

from collections.abc import Callable

from dscache.digest import Sums
from dscache.model import Artifact
from dscache.transfer.download import Download


class Parcel:
    """One small file on its way.

    Attributes:
        size: bytes that it should have.
        chunks: what has come, `count` bytes.
        data, sums: the file and its hashes, once it has been found right.
    """

    __slots__ = ("_opened", "artifact", "chunks", "count", "data", "key", "size", "sums")

    kept = 0  # of earlier attempts: nothing is
    data: bytes
    sums: Sums

    def __init__(self, key: str, artifact: Artifact, opened: Callable[[Parcel], Download]) -> None:
        self.key = key
        self.artifact = artifact
        self.size = artifact.size or 0
        self.chunks: list[bytes] = []
        self.count = 0
        self._opened = opened

    def take(self, chunks: list[bytes]) -> None:
        """Keep what has come."""
        self.chunks += chunks
        self.count += sum(map(len, chunks))

    def is_right(self) -> bool:
        """True if what has come is the file."""
        if self.count != self.size:
            return False
        digests = self.artifact.digests
        self.data = b"".join(self.chunks)
        self.sums = Sums([each.algorithm for each in digests])
        self.sums.update(self.data)
        return self.sums.mismatch(digests) is None

    def open(self) -> Download:
        """The download that takes over; it has asked for what the parcel has asked for."""
        return self._opened(self)
