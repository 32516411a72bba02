"""Manifests: lists of artifacts too long for an entry, one JSON object a line.

Read lazily, so that a hundred thousand artifacts need no more memory than one.
"""

from __future__ import annotations

import gzip
import sys
import urllib.parse
from collections.abc import Iterator
from io import BufferedIOBase

import msgspec

from dscache.digest import Digest
from dscache.errors import InvalidFile
from dscache.model import Artifact, Manifest, collisions
from dscache.registry.entries import ArtifactEntry, ManifestLine, Problem, artifact_problems

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAX_LINE = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def read(path: str, manifest: Manifest, *, local: bool) -> Iterator[Artifact]:
    """The artifacts that the manifest file at `path` lists.

    Raises:
        InvalidFile: a line is malformed or breaks a rule of entries; names the line.
        UnsafeError: a path or URL leads where it must not.
    """
    decoder = msgspec.json.Decoder(ManifestLine)
    name = manifest.file.path
    seen: list[str] = []
    with _opened(path) as file:
        for number, raw in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
            if raw.isspace():
                continue
            where = f"{name}, line {number}"
            try:
                line = decoder.decode(raw)
            except msgspec.MsgspecError as error:
                raise InvalidFile(f"{where}: {error}", file=name) from error
            seen.append(line.path)
            yield _artifact(line, manifest, where, local)
    for one, other in collisions(seen):
        raise InvalidFile(f"{name}: {one!r} and {other!r} cannot both be stored", file=name)


def _artifact(line: ManifestLine, manifest: Manifest, where: str, local: bool) -> Artifact:
    urls = line.urls or [base + urllib.parse.quote(line.path) for base in manifest.base_urls]
    entry = ArtifactEntry(path=line.path, hash=line.hash, size=line.size, urls=urls)
    for problem in artifact_problems(entry, "", local):
        raise Problem(problem.key.lstrip("."), problem.error).located(where)
    return Artifact(line.path, Digest.parse(line.hash), line.size, urls=tuple(urls))


def _opened(path: str) -> BufferedIOBase:
    """The manifest's text; compression is told by the first bytes."""
    file = open(path, "rb")  # noqa: SIM115 - handed to the caller
    start = file.read(4)
    file.seek(0)
    if start.startswith(_GZIP):
        return gzip.open(file)
    if start == _ZSTD:
        return zstd.open(file)
    return file
