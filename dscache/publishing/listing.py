"""The index of a destination: what is known of it before a publishing, and what it says afterwards.

Pure: bytes in, bytes out. Rows of others are carried over as they are. Beside the rows, which are
for readers, it says what each file held when it was published last; an author's file that is the
same needs no further look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
from msgspec import structs

from dscache.errors import InvalidFile
from dscache.malformed import MALFORMED
from dscache.model import version_order
from dscache.publishing.source import Source
from dscache.registry import index
from dscache.registry.index import Row
from dscache.registry.tables import Alias, Entry

Value = TypeVar("Value")


class Listing(msgspec.Struct, frozen=True):
    """An index as publishing needs it: rows not taken apart; the sha256 of each file, by name."""

    datasets: dict[str, msgspec.Raw] = {}
    serial: int = 0
    format: int = 1
    files: dict[str, str] = {}


def decode(data: bytes | None) -> Listing:
    """What an index says; an empty one where there is none.

    Raises:
        InvalidFile: it is malformed, or of a format that this version does not know.
    """
    if data is None:
        return Listing()
    try:
        found = msgspec.json.decode(data, type=Listing)
    except MALFORMED as error:
        raise InvalidFile(str(error)) from error
    if found.format != 1:
        raise InvalidFile(f"format: {found.format} is not known; this version writes 1")
    return found


def rows(source: Source) -> dict[str, Row]:
    """What the index should say of an author's datasets."""
    aliases: dict[str, set[str]] = {}
    for own in source.entries.values():
        if isinstance(own.entry, Alias):
            aliases.setdefault(own.entry.see, set()).add(own.name.dataset)
    return {
        name: index.row(name, own.entry, set(source.contents[name]), aliases.get(name, set()))
        for own in source.entries.values()
        if isinstance(own.entry, Entry) and not own.name.version
        for name in (own.name.dataset,)
    }


def merged(known: Listing, own: Mapping[str, Row], files: Mapping[str, str]) -> bytes | None:
    """The next index, with an author's rows and files; None where that changes nothing."""
    datasets = dict(known.datasets)
    aliases = {alias for row in own.values() for alias in row.aliases}
    for name, row in own.items():
        before = _row(known.datasets.get(name))
        after = _merged(before, row, aliases) if before else row
        if after != before:
            datasets[name] = msgspec.Raw(msgspec.json.encode(after))
    both = {**known.files, **files}
    if datasets == known.datasets and both == known.files:
        return None
    return encode(Listing(_sorted(datasets), known.serial + 1, files=_sorted(both)))


def encode(listing: Listing) -> bytes:
    """An index as a file."""
    return msgspec.json.format(msgspec.json.encode(listing), indent=1) + b"\n"


def _row(data: msgspec.Raw | None) -> Row | None:
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Row)
    except MALFORMED as error:
        raise InvalidFile(str(error)) from error


def _merged(before: Row, own: Row, own_aliases: Iterable[str]) -> Row:
    """One row: a version that the author does not have was made current after his, and stays so."""
    head = own if before.version in own.versions else before
    versions = sorted({*before.versions, *own.versions}, key=version_order)
    others = set(before.aliases).difference(own_aliases)
    return structs.replace(
        head, versions=tuple(versions), aliases=tuple(sorted({*own.aliases, *others}))
    )


def _sorted(table: Mapping[str, Value]) -> dict[str, Value]:
    return dict(sorted(table.items()))
