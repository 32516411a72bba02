"""Pieces: spans of one file that further connections fetch ahead of the one that began it.

A piece is a bonus: whatever goes wrong with it, the span is simply free again, and the download
alone would get the file as well. Pieces are taken in order and are not long, so that hashing, which
needs the bytes in order, never waits for long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.store.ranges import Ranges, Span

if TYPE_CHECKING:
    from dscache.transfer.download import Download

#: How long the next piece may be, where so many bytes are left for all connections.
Share = Callable[[int], int]


class Piece:
    """One span on its way.

    Attributes:
        validator: under which the source has served this file before; empty if it has not.
        is_receiving: False when it is complete, lost or no longer wanted.
        head: what the source has said.
    """

    def __init__(
        self, download: Download, url: str, start: int, end: int, validator: str = ""
    ) -> None:
        self.download = download
        self.url = url
        self.start = self.position = start
        self.end = end
        self.validator = validator
        self.is_receiving = True
        self.head: Head | None = None

    @property
    def left(self) -> int:
        """Bytes that are missing."""
        return self.end - self.position

    def request(self) -> Request:
        """What to ask for."""
        return Request(self.url, self.start, self.validator, self.end, is_long=True)

    def begin(self, head: Head) -> None:
        """The source has answered; only bytes of the very same file will do."""
        self.head = head
        if head.start != self.start or head.encoding:
            self.fail(Failure(Trouble.RANGE, "the source serves no ranges of it"))
        elif head.total != self.download.total:
            self.fail(Failure(Trouble.RANGE, "the source has a file of another size"))
        elif self.validator and head.validator != self.validator:
            self.fail(Failure(Trouble.RANGE, "the file changed at the source"))

    def receive(self, chunks: list[bytes]) -> None:
        """Take bytes; what the source sends beyond the end is not wanted."""
        count = sum(map(len, chunks))
        is_more = count > self.left
        if is_more:
            chunks, count = [b"".join(chunks)[: self.left]], self.left
        offset = self.position
        self.position += count
        self.download.take(self, chunks, offset)
        if is_more:
            self.download.complete(self)

    def finish(self) -> None:
        """The body has ended as the protocol wants it."""
        if self.left:
            self.fail(Failure(Trouble.CONNECTION, "the body of a piece ended too early"))
        else:
            self.download.complete(self)

    def fail(self, failure: Failure) -> None:
        """The source did not give the rest."""
        self.download.lose(self, failure)

    def give_way(self, url: str) -> None:
        """A connection to `url` would be much faster."""
        self.download.lose(self)


def next_span(claimed: Ranges, size: int, share: Share) -> Span | None:
    """The first span of a file that nobody has or fetches, cut to its share; None if there is none.

    A rest too short for a piece of its own goes with the piece before it.
    """
    gaps = list(claimed.gaps(size))
    if not gaps:
        return None
    length = share(sum(end - start for start, end in gaps))
    start, end = gaps[0]
    return (start, end) if end - start < length * 3 // 2 else (start, start + length)
