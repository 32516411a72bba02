"""The index of a registry: what lists and searches need, in one file. Never needed to fetch.

`{"format": 1, "serial", "datasets": {name: {"version", "versions", "size", "summary", "aliases",
"digest"}}}`. `serial` grows with each new content; `digest` is the content identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from dscache.errors import DscacheError, InvalidFile
from dscache.events import Emit, Notice
from dscache.malformed import MALFORMED
from dscache.model import is_name, is_version, version_order
from dscache.registry.entries import Document, dataset
from dscache.registry.places import INDEX, Place
from dscache.registry.rules import located
from dscache.registry.tables import Alias, Entry, EntryName


class Row(msgspec.Struct, frozen=True, gc=False):
    """One dataset in the index."""

    version: Annotated[str, Meta(description="the current one")]
    versions: tuple[str, ...]
    size: Annotated[int | None, Meta(description="bytes; null where a file's is not known")]
    summary: str
    aliases: tuple[str, ...]
    digest: Annotated[str, Meta(description="content identity of the current version")]


class Index(msgspec.Struct, frozen=True):
    """The `index.json` of a registry: its datasets by name."""

    datasets: dict[str, Row]
    serial: Annotated[int, Meta(ge=1, description="grows with each new content")] = 1
    format: int = 1


def build(place: Place, broken: Callable[[DscacheError], None]) -> Index:
    """Read every entry of a registry that can be listed.

    Args:
        broken: takes the error of each entry that cannot be used, and may raise it; else the entry
            is left out.

    Raises:
        InvalidFile: the place cannot be listed.
        TransferError: the place cannot be read.
    """
    if (files := place.names()) is None:
        raise InvalidFile(f"{place.url} cannot be listed and has no {INDEX}")
    entries: dict[str, Entry] = {}
    versions: dict[str, set[str]] = {}
    aliases: dict[str, set[str]] = {}
    for file in sorted(files):
        name = EntryName.of(file)
        entry = _entry(place, file, broken) if name else None
        if name is None or entry is None:
            continue
        if isinstance(entry, Alias):
            aliases.setdefault(entry.see, set()).add(name.dataset)
            continue
        versions.setdefault(name.dataset, set()).add(name.version or entry.version)
        if not name.version:
            entries[name.dataset] = entry
    return Index(
        {
            name: row(name, entry, versions[name], aliases.get(name, set()))
            for name, entry in sorted(entries.items())
        }
    )


def _entry(place: Place, file: str, broken: Callable[[DscacheError], None]) -> Entry | Alias | None:
    try:
        document = place.document(file)
        if document:
            _refuse_problems(document, place.base + file)
    except DscacheError as error:
        broken(error)
        return None
    return document.entry if document else None  # None: removed since the folder was listed


def _refuse_problems(document: Document, where: str) -> None:
    for problem in document.problems:
        raise problem.located(where)


def row(name: str, entry: Entry, versions: set[str], aliases: set[str]) -> Row:
    """One dataset of the index."""
    found = dataset(entry, name, "", "")
    return _printable(
        Row(
            version=entry.version,
            versions=tuple(sorted(versions, key=version_order)),
            size=found.size,
            summary=entry.summary,
            aliases=tuple(sorted(aliases)),
            digest=f"sha256:{found.content}",
        )
    )


def read(place: Place, emit: Emit | None = None, most: int | None = None) -> Index:
    """The index file of a registry, or one built from its entries where there is none.

    Entries that cannot be used are left out, with a notice. With `most`, a file of more bytes is
    malformed.

    Raises:
        InvalidFile: the index is malformed, or there is none and the place cannot be listed.
        TransferError: the place cannot be read.
    """
    data = place.read(INDEX, most)
    if data is None:
        return build(place, lambda error: emit(Notice(f"left out: {error}")) if emit else None)
    try:
        return decode(data)
    except InvalidFile as error:
        raise located(error, f"{place.base}{INDEX}") from error


def decode(data: bytes) -> Index:
    """The content of an `index.json`. What could not be shown on a terminal is not in it.

    Raises:
        InvalidFile: it is malformed, or of a format that this version does not know.
    """
    try:
        index = msgspec.json.decode(data, type=Index)
    except MALFORMED as error:
        raise InvalidFile(str(error)) from error
    if index.format != 1:
        raise InvalidFile(f"format: {index.format} is not known; this version reads 1")
    rows = {name: row for name, row in index.datasets.items() if is_name(name)}
    if not _is_plain(data):
        rows = {name: _printable(row) for name, row in rows.items()}
    return msgspec.structs.replace(index, datasets=rows)


def _is_plain(data: bytes) -> bool:
    """True for JSON in which every text can be shown, as nearly all is: ASCII without an escape."""
    return data.isascii() and b"\\" not in data and b"\x7f" not in data


def _printable(row: Row) -> Row:
    names = (*row.aliases, *row.versions, row.version, row.digest)
    if row.summary.isprintable() and all(name.isprintable() for name in names):
        return row
    return Row(
        version=_cleaned(row.version),
        versions=tuple(filter(is_version, row.versions)),
        size=row.size,
        summary=_cleaned(row.summary),
        aliases=tuple(filter(is_name, row.aliases)),
        digest=_cleaned(row.digest),
    )


def _cleaned(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def encode(index: Index) -> bytes:
    """The index as a file that can be read by people and compared by lines."""
    return msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n"
