"""The division of one download into pieces: who fetches what, and which sources serve pieces.

Decides about spans only. What the bytes are worth is the download's business.
"""

from __future__ import annotations

from dscache.sources.exchange import Failure
from dscache.sources.retry import Policy, delay
from dscache.store.ranges import Ranges, Span
from dscache.transfer.pieces import Piece, Share, next_span

#: Pieces that may be lost one after the other before no more are tried.
_MOST_LOST = 20


class Division:
    """The pieces of one download.

    Attributes:
        pieces: those that are under way.
        is_possible: several connections, or sources, may share the file.
        undivided: URLs that have not served a piece of it.
    """

    def __init__(self, *, is_possible: bool) -> None:
        self.is_possible = is_possible
        self.undivided: set[str] = set()
        self.pieces: list[Piece] = []
        self._validators: dict[str, str] = {}
        self._lost = 0  # since a piece was complete

    def next_span(self, claimed: Ranges, total: int, share: Share) -> Span | None:
        """The first span that is neither `claimed` nor on its way; None if there is none."""
        for piece in self.pieces:
            claimed.add(piece.position, piece.end)
        return next_span(claimed, total, share)

    def add(self, piece: Piece) -> None:
        """A piece is asked for, under the validator that its source has shown before."""
        piece.validator = self._validators.get(piece.url, piece.validator)
        self.pieces.append(piece)

    def receive(self, piece: Piece) -> None:
        """Bytes of a piece have come: its source has shown its validator."""
        if piece.head:
            self._validators[piece.url] = piece.head.validator

    def complete(self, piece: Piece) -> None:
        """All of a piece is here."""
        self._lost = 0
        self._end(piece)

    def lose(self, piece: Piece, failure: Failure | None, policy: Policy) -> None:
        """Nothing more will come of a piece; None if that is nobody's fault."""
        if failure is not None and delay(failure, 1, policy) is None:
            self.undivided.add(piece.url)
        elif failure is not None:
            self._lost += 1
            self.is_possible &= self._lost <= _MOST_LOST
        self._end(piece)

    def drop(self) -> None:
        """None of the pieces is wanted any more."""
        for piece in list(self.pieces):
            self._end(piece)

    def brings(self, offset: int) -> bool:
        """True if the byte at `offset` is the next one of a piece."""
        return any(piece.position == offset for piece in self.pieces)

    def starts(self) -> list[int]:
        """Where the pieces begin."""
        return [piece.start for piece in self.pieces]

    def _end(self, piece: Piece) -> None:
        piece.is_receiving = False
        self.pieces.remove(piece)
