"""What a destination has now of what an author publishes. It looks, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from dscache.depots import Depot, Stored
from dscache.depots.asking import together
from dscache.errors import InvalidFile
from dscache.publishing import listing
from dscache.publishing.listing import Listing
from dscache.publishing.source import Own, Piece, Source
from dscache.registry.places import HEADER, INDEX, limit_of
from dscache.registry.rules import located

#: Files that a depot lists in one answer.
_IN_ONE = 1000


class Standing(msgspec.Struct, frozen=True):
    """The state of a destination.

    Attributes:
        files: of the author's files those that are not known to be there as they are, with what is
            there instead.
        held: the sha256 of pieces that are there.
    """

    listing: Listing
    files: Mapping[str, Stored | None]
    held: frozenset[str]


def look(source: Source, depot: Depot, known: Listing | None = None) -> Standing:
    """The present state of a destination.

    Args:
        known: its index; default: the one that is there.

    Raises:
        InvalidFile: its index is malformed.
        TransferError: it cannot be read.
    """
    header = depot.read(HEADER, limit_of(HEADER))
    # Where there is no header yet no reader can find anything, so that there is not much to ask.
    if known is None:
        known = read_listing(depot)[0] if header else Listing()
    owns = [own for own in source.entries.values() if known.files.get(own.file) != own.sha256]
    found = together(lambda own: read(depot, own.file), owns) if header else [None] * len(owns)
    files: dict[str, Stored | None] = {HEADER: header}
    files |= {own.file: there for own, there in zip(owns, found, strict=True)}
    return Standing(known, files, _held(depot, source.entries.values(), files))


def read(depot: Depot, file: str) -> Stored | None:
    """A registry file of a destination."""
    return depot.read(file, limit_of(file))


def read_listing(depot: Depot) -> tuple[Listing, str]:
    """The index of a destination, and the version that whoever changes it must name."""
    found = read(depot, INDEX)
    try:
        return listing.decode(found.data if found else None), found.version if found else ""
    except InvalidFile as error:
        raise located(error, f"{depot.url}/{INDEX}") from error


def _held(depot: Depot, owns: Iterable[Own], files: Mapping[str, Stored | None]) -> frozenset[str]:
    """The pieces that are there: those of entries that are, and those that are found."""
    held: set[str] = set()
    wanted: dict[str, Piece] = {}
    for own in owns:
        if own.file in files:
            wanted |= {piece.sha256: piece for piece in own.pieces}
        else:
            held |= {piece.sha256 for piece in own.pieces}
    unknown = [piece for piece in wanted.values() if piece.sha256 not in held]
    return frozenset(held | _found(depot, unknown))


def _found(depot: Depot, pieces: Sequence[Piece]) -> set[str]:
    """Which of some pieces are there, asked for one by one, or all at once where that is less.

    A list gives a thousand for one question; where there is no end to it, it is given up.
    """
    if len(pieces) > 1:
        most = len(pieces) + _IN_ONE
        some = list(islice(depot.list("blobs/"), most + 1))
        if len(some) <= most:
            sizes = {each.key: each.size for each in some}
            return {piece.sha256 for piece in pieces if _fits(piece, sizes.get(piece.key))}
    found = together(lambda piece: depot.size(piece.key), pieces)
    return {piece.sha256 for piece, size in zip(pieces, found, strict=True) if _fits(piece, size)}


def _fits(piece: Piece, size: int | None) -> bool:
    return size is not None and piece.size in (None, size)
