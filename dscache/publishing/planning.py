"""The plan of a publishing: what goes where, in which order. What is shown is what is executed."""

from __future__ import annotations

import msgspec

from dscache.depots import Depot
from dscache.publishing import rules, standing
from dscache.publishing.listing import Listing
from dscache.publishing.rules import Put
from dscache.publishing.source import Own, Piece, Source
from dscache.publishing.standing import Standing
from dscache.registry.tables import Alias
from dscache.results import Publication, PublishedChange

_HEADER, _VERSIONS, _CURRENT, _ALIASES = range(4)
_WHAT = ("registry", "version", "current", "other name")


class Plan(msgspec.Struct, frozen=True):
    """What is put at a destination.

    Attributes:
        uploads: pieces that are not there; the first that are put.
        skipped: how many are.
        steps: files, each group after the one before: `registry.toml`; versions; what says which
            version is current; other names. The index comes last.
    """

    source: Source
    there: Standing
    url: str
    uploads: tuple[Piece, ...]
    skipped: int
    steps: tuple[tuple[Put, ...], ...]

    @property
    def files(self) -> dict[str, bytes]:
        """What each file of the author will hold there."""
        found = {own.file: own.data for own in (self.source.header, *self.source.entries.values())}
        found |= {file: there.data for file, there in self.there.files.items() if there}
        return found | {put.own.file: put.data for step in self.steps for put in step}

    @property
    def summary(self) -> Publication:
        """What it comes to."""
        uploads = (PublishedChange("upload", each.of, each.size) for each in self.uploads)
        files = (
            PublishedChange(_WHAT[number], put.own.file.removesuffix(".toml"), new=not put.version)
            for number, step in enumerate(self.steps)
            for put in step
        )
        return Publication(
            url=self.url,
            uploaded=len(self.uploads),
            skipped=self.skipped,
            bytes=sum(piece.size or 0 for piece in self.uploads),
            published=tuple(put.own.file.removesuffix(".toml") for put in self.steps[_VERSIONS]),
            changes=(*uploads, *files),
        )


def plan(source: Source, depot: Depot, known: Listing | None) -> Plan:
    """Compare what an author has with what a destination has.

    Args:
        known: the index of the destination, where it is not the plain one that counts.

    Raises:
        IntegrityError: a published version would get other content.
        TransferError: the destination cannot be read, or has what the author does not know.
        InvalidFile: what is there is malformed, or of another registry.
    """
    return decided(source, standing.look(source, depot, known), depot.url)


def decided(source: Source, there: Standing, url: str) -> Plan:
    """As `plan`, of what was read. Pure."""
    pieces = {piece.sha256: piece for own in source.entries.values() for piece in own.pieces}
    uploads = tuple(piece for sha256, piece in pieces.items() if sha256 not in there.held)
    steps: tuple[list[Put], ...] = ([], [], [], [])
    for own in (source.header, *source.entries.values()):
        if own.file in there.files:
            put = rules.put(own, there.files[own.file], source.contents, url)
            steps[_step(own)].extend([put] if put else ())
    skipped = len(pieces) - len(uploads)
    return Plan(source, there, url, uploads, skipped, tuple(map(tuple, steps)))


def _step(own: Own) -> int:
    if own.entry is None:
        return _HEADER
    if isinstance(own.entry, Alias):
        return _ALIASES
    return _VERSIONS if own.name.version else _CURRENT
