"""The tables of registry files as typed values: what keys there are, of which type, in which order.

Bytes in, structs out; an error names key and reason. Which values make sense together is for
`rules` to say. The JSON schemas in the documentation are made of these types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from dscache import toml
from dscache.errors import InvalidFile
from dscache.model import is_name, is_version

#: The `format` of registries that this version reads and writes.
FORMAT = 1

#: An entry describes one dataset; whoever has more than this to list uses a manifest.
MAX_ENTRY = 8 << 20

Size = Annotated[int, Meta(ge=0, le=2**63 - 1, description="bytes")]
Hash = Annotated[str, Meta(description="`alg:hex`; without `alg:` it is a sha256")]
Recipe = Annotated[
    str,
    Meta(
        description="how to unpack the file: tar, zip, gzip, bzip2, xz, zstd or auto; two of them "
        "for archives in an archive, such as tar+tar; without it the file is used as it is"
    ),
]
Urls = Annotated[
    list[str],
    Meta(
        description="sources in order of preference: https, http, ftp, sftp or doi; relative ones "
        "are relative to the registry; file: and plain paths in local registries only"
    ),
]
InBlobs = Annotated[bool, Meta(description="the registry holds the bytes under blobs/")]


class ArtifactEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One file of a dataset."""

    path: Annotated[str, Meta(description="file name in the dataset, '/' between parts")]
    size: Size | None = None
    hash: Hash
    checksums: Annotated[list[str], Meta(description="more hashes; all must match")] = []
    urls: Urls = []
    blob: InBlobs = False
    manual: Annotated[str, Meta(description="how a person gets the file")] = ""
    unpack: Recipe = ""
    unpack_to: Annotated[str, Meta(description="folder in the dataset for the members")] = ""
    note: Annotated[str, Meta(description="provenance of the hash, other remarks")] = ""


class ManifestEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where the list of the files is, if they are too many for an entry."""

    size: Size | None = None
    hash: Hash
    checksums: Annotated[list[str], Meta(description="more hashes; all must match")] = []
    urls: Urls = []
    blob: InBlobs = False
    base_urls: Annotated[
        list[str], Meta(description="a file without URLs of its own is at each of these + its path")
    ] = []
    path: Annotated[str, Meta(description="name of the list itself, for messages")] = ""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of a dataset: `<name>.toml` or `<name>@<version>.toml`."""

    version: Annotated[str, Meta(description="letters, digits and . _ + -")]
    summary: Annotated[str, Meta(description="one sentence")] = ""
    license: Annotated[str, Meta(description="SPDX expression, or words")] = ""
    homepage: str = ""
    citation: str = ""
    yanked: Annotated[str, Meta(description="why nobody should use this version any more")] = ""
    versions: Annotated[
        list[str], Meta(description="all versions that there are, in the current one's file")
    ] = []
    artifacts: list[ArtifactEntry] = []
    manifest: ManifestEntry | None = None


class Alias(msgspec.Struct, frozen=True):
    """Another name for a dataset: `<alias>.toml`."""

    see: Annotated[str, Meta(description="the name of the dataset, in the same registry")]


class RegistryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `registry.toml` of a registry."""

    format: Annotated[int, Meta(description="the version of the format: 1")]
    name: str
    title: str = ""
    description: str = ""
    homepage: str = ""


class ManifestLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a manifest: one file of the dataset."""

    path: Annotated[str, Meta(description="file name in the dataset, '/' between parts")]
    hash: Hash
    size: Size | None = None
    urls: Urls = []


_Kind = TypeVar("_Kind")
Table = type[ArtifactEntry | ManifestEntry | Entry | Alias | RegistryEntry]

_KEYS: Mapping[Table, frozenset[str]] = {
    kind: frozenset(kind.__struct_fields__)
    for kind in (ArtifactEntry, ManifestEntry, Entry, Alias, RegistryEntry)
}


class EntryName(msgspec.Struct, frozen=True):
    """What the name of an entry's file says."""

    dataset: str
    version: str = ""

    @classmethod
    def of(cls, file: str) -> EntryName | None:
        """The name in `<name>.toml` or `<name>@<version>.toml`; None for any other file."""
        stem = file.removesuffix(".toml")
        name, at, version = stem.partition("@")
        if stem == file or not is_name(name) or (at and not is_version(version)):
            return None
        return cls(name, version)

    def __str__(self) -> str:
        return f"{self.dataset}@{self.version}.toml" if self.version else f"{self.dataset}.toml"


def load_toml(data: bytes) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InvalidFile: it is too long, not UTF-8 or not TOML.
    """
    if len(data) > MAX_ENTRY:
        raise too_long()
    try:
        return toml.parse(data)
    except (ValueError, RecursionError) as error:
        page = data.lstrip()[:1] == b"<"
        hint = "this is a web page, not a registry file" if page else ""
        raise InvalidFile(f"not valid TOML: {error}", hint=hint) from error


def too_long(limit: int = MAX_ENTRY) -> InvalidFile:
    """The error for a file that nobody should have to read."""
    return InvalidFile(
        f"longer than {limit} bytes", hint="[manifest] is for datasets of very many files"
    )


def decode(table: dict[str, Any]) -> Entry | Alias:
    """The typed form of an entry's tables.

    Raises:
        InvalidFile: a key is missing or has the wrong type.
    """
    return _convert(table, Alias) if "see" in table else _convert(table, Entry)


def decode_registry(table: dict[str, Any]) -> RegistryEntry:
    """The typed form of a `registry.toml`; raises as `decode`."""
    return _convert(table, RegistryEntry)


def _convert(table: dict[str, Any], kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        key = where.rstrip("`").lstrip(".")
        raise InvalidFile(f"{key}: {reason}" if key else reason, key=key) from error


def unknown_keys(table: Mapping[str, Any], kind: Table) -> Iterator[str]:
    """Keys that the format does not have, in the tables of an entry, alias or registry."""
    yield from _unknown(table, _KEYS[kind], "")
    if kind is not Entry:
        return
    lines = table.get("artifacts")
    for number, each in enumerate(lines if isinstance(lines, list) else ()):
        yield from _unknown(each, _KEYS[ArtifactEntry], f"artifacts[{number}].")
    yield from _unknown(table.get("manifest"), _KEYS[ManifestEntry], "manifest.")


def _unknown(table: object, known: Set[str], prefix: str) -> Iterable[str]:
    if not isinstance(table, dict) or table.keys() <= known:
        return ()
    return [f"{prefix}{key}" for key in sorted(table.keys() - known)]
