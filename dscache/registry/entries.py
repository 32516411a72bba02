"""From the bytes of a registry file to a `Dataset`: decoded by `tables`, checked by `rules`.

Pure: bytes in, values out. URLs come out absolute, those of the registry's own blobs first.
"""

from __future__ import annotations

import urllib.parse
from functools import lru_cache

from dscache.digest import Digest
from dscache.errors import InvalidFile
from dscache.model import Artifact, Dataset, Manifest, content_of, is_name
from dscache.registry.rules import Problem, is_local_path, problems, text_problem
from dscache.registry.tables import (
    FORMAT,
    Alias,
    ArtifactEntry,
    Entry,
    ManifestEntry,
    RegistryEntry,
    decode,
    decode_registry,
    load_toml,
    unknown_keys,
)

_MANIFEST_NAME = "manifest.jsonl"


class Document:
    """One registry file, decoded and checked: what a look-up needs of it.

    Attributes:
        entry: the entry or alias.
        unknown: keys that the format does not have.
        problems: broken rules, without the name of the file.
    """

    def __init__(self, data: bytes, *, local: bool) -> None:
        """Decode a file. `local`: it is of a registry in a folder of this machine.

        Raises:
            InvalidFile: it is not TOML, or a key is missing or has the wrong type.
        """
        table = load_toml(data)
        self.entry: Entry | Alias = decode(table)
        self.unknown = tuple(unknown_keys(table, type(self.entry)))
        self.problems: tuple[Problem, ...] = tuple(problems(self.entry, local=local))
        self._datasets: dict[tuple[str, str, str], Dataset] = {}

    def dataset(self, name: str, registry: str, base: str) -> Dataset:
        """The dataset that the entry describes; see the function `dataset`."""
        key = name, registry, base
        if key not in self._datasets:
            assert isinstance(self.entry, Entry)
            self._datasets[key] = dataset(self.entry, name, registry, base)
        return self._datasets[key]


def dataset(entry: Entry, name: str, registry: str, base: str) -> Dataset:
    """The dataset that an entry without problems describes.

    Args:
        registry: the name under which the user knows the registry.
        base: URL of the registry, ending in '/'; relative URLs and blobs are below it.
    """
    artifacts = tuple(_artifact(each, base) for each in entry.artifacts)
    manifest = _manifest(entry.manifest, base) if entry.manifest else None
    return Dataset(
        registry=registry,
        name=name,
        version=entry.version,
        content=content_of(artifacts, manifest),
        artifacts=artifacts,
        manifest=manifest,
        summary=entry.summary,
        license=entry.license,
        homepage=entry.homepage,
        citation=entry.citation,
        yanked=entry.yanked,
        base=base,
    )


def _artifact(each: ArtifactEntry, base: str) -> Artifact:
    digests = digests_of(each)
    return Artifact(
        path=each.path,
        hash=digests[0],
        size=each.size,
        checksums=digests[1:],
        urls=_sources(each, digests, base),
        manual=each.manual,
        unpack=each.unpack,
        unpack_to=each.unpack_to,
    )


def _manifest(each: ManifestEntry, base: str) -> Manifest:
    digests = digests_of(each)
    file = Artifact(
        path=each.path or _MANIFEST_NAME,
        hash=digests[0],
        size=each.size,
        checksums=digests[1:],
        urls=_sources(each, digests, base),
    )
    return Manifest(file, tuple(absolute(url, base) for url in each.base_urls), base)


def digests_of(each: ArtifactEntry | ManifestEntry) -> tuple[Digest, ...]:
    """All hashes of an artifact without problems, the one that gives its identity first."""
    return tuple([Digest.parse(text) for text in (each.hash, *each.checksums)])


def _sources(
    each: ArtifactEntry | ManifestEntry, digests: tuple[Digest, ...], base: str
) -> tuple[str, ...]:
    urls = [absolute(url, base) for url in each.urls]
    if each.blob:
        from dscache.registry import blobs  # late: few registries hold bytes themselves

        own = (digest for digest in digests if digest.algorithm == "sha256")
        urls[:0] = [base + blobs.file(digest.hex) for digest in own]
    return tuple(urls)


def absolute(url: str, base: str) -> str:
    """A URL without problems, made absolute."""
    if url.startswith(("https://", "http://")):
        return url
    if is_local_path(url):
        path = url if url.startswith("/") else "/" + url.replace("\\", "/")
        return f"file://{urllib.parse.quote(path, '/:')}"
    return url if urllib.parse.urlsplit(url).scheme else base + url


@lru_cache(maxsize=64)
def decode_header(data: bytes) -> RegistryEntry:
    """The content of a `registry.toml`.

    Raises:
        InvalidFile: it is malformed, or of a format that this version does not know.
    """
    table = load_toml(data)
    if (found := table.get("format", FORMAT)) != FORMAT:  # first: other formats, other keys
        raise InvalidFile(
            f"format: {found!r} is not known; this version reads {FORMAT}",
            hint="use a newer dscache",
            key="format",
        )
    header = decode_registry(table)
    if not is_name(header.name):
        raise InvalidFile(f"name: {header.name!r} cannot be the name of a registry", key="name")
    for key in ("title", "description", "homepage"):
        for problem in text_problem(getattr(header, key), key):
            raise InvalidFile(f"{key}: {problem.error}", key=key)
    return header
