"""The index of a registry: what lists and searches need, in one file. Never needed to fetch.

`{"format": 1, "serial", "datasets": {name: {"version", "versions", "size", "summary", "aliases",
"digest"}}}`. `serial` grows with each new content; `digest` is the content identity.
"""

from __future__ import annotations

import msgspec

from dscache.errors import InvalidFile
from dscache.registry.entries import Alias, Entry, dataset
from dscache.registry.places import Place

FILE = "index.json"


class Row(msgspec.Struct, frozen=True):
    """One dataset in the index. `size` in bytes, None where an artifact's is not known."""

    version: str
    versions: tuple[str, ...]
    size: int | None
    summary: str
    aliases: tuple[str, ...]
    digest: str


class Index(msgspec.Struct, frozen=True):
    """All datasets of a registry by name."""

    datasets: dict[str, Row]
    serial: int = 1
    format: int = 1


def build(place: Place) -> Index:
    """Read every entry of a registry that can be listed.

    Raises:
        InvalidFile: the place cannot be listed, or an entry cannot be decoded.
    """
    files = place.names()
    if files is None:
        raise InvalidFile(f"{place.url} cannot be listed and has no {FILE}")
    entries: dict[str, Entry] = {}
    versions: dict[str, set[str]] = {}
    aliases: dict[str, set[str]] = {}
    for file in files:
        name, dot, suffix = file.rpartition(".")
        if not dot or suffix != "toml" or file == "registry.toml":
            continue
        bare, at, version = name.partition("@")
        if at:
            versions.setdefault(bare, set()).add(version)
            continue
        document = place.document(file)
        if document is None:
            continue  # removed since the folder was listed
        entry = document.entry
        if isinstance(entry, Alias):
            aliases.setdefault(entry.see, set()).add(name)
        else:
            entries[name] = entry
            versions.setdefault(name, set()).add(entry.version)
    rows = {
        name: _row(name, entry, versions[name], aliases.get(name, set()), place.base)
        for name, entry in sorted(entries.items())
    }
    return Index(rows)


def read(place: Place) -> Index:
    """The index file of a registry, or one built from its entries where there is none.

    Raises:
        InvalidFile: the index is malformed, or there is none and the place cannot be listed.
    """
    data = place.read(FILE)
    if data is None:
        return build(place)
    try:
        return msgspec.json.decode(data, type=Index)
    except msgspec.MsgspecError as error:
        raise InvalidFile(f"{place.base}{FILE}: {error}", file=FILE) from error


def encode(index: Index) -> bytes:
    """The index as a file that can be read by people and compared by lines."""
    return msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n"


def _row(name: str, entry: Entry, versions: set[str], aliases: set[str], base: str) -> Row:
    found = dataset(entry, name, "", base)
    return Row(
        version=entry.version,
        versions=tuple(sorted(versions)),
        size=found.size,
        summary=entry.summary,
        aliases=tuple(sorted(aliases)),
        digest=f"sha256:{found.content}",
    )
