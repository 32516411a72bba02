"""JSON schemas of the registry's files, made of the types that read them.

`python -m dscache.registry.schema docs/schema` writes them. Editors use them to complete keys and
to mark mistakes; the rules that a schema cannot say are in `rules`.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from dscache import filesystem
from dscache.registry.index import Index
from dscache.registry.tables import Alias, Entry, ManifestLine, RegistryEntry

_TYPES: dict[str, type[msgspec.Struct]] = {
    "entry": Entry,
    "alias": Alias,
    "registry": RegistryEntry,
    "manifest-line": ManifestLine,
    "index": Index,
}
_WRITTEN_BY_PEOPLE = (Entry, Alias, RegistryEntry)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, bytes]:
    """The schema files by name."""
    return {f"{name}.json": _schema(kind) for name, kind in _TYPES.items()}


def _schema(kind: type[msgspec.Struct]) -> bytes:
    schema: dict[str, Any] = {"$schema": _DIALECT, **msgspec.json.schema(kind)}
    if kind in _WRITTEN_BY_PEOPLE:
        for each in schema["$defs"].values():
            # A look-up ignores unknown keys, with a notice, for the sake of later formats; whoever
            # writes a file should be told.
            each["additionalProperties"] = False
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def write(folder: str) -> None:
    """Write all schemas into a folder."""
    for name, data in schemas().items():
        filesystem.publish_bytes(data, f"{folder}/{name}")


if __name__ == "__main__":
    write(sys.argv[1])
