"""Manifests: lists of artifacts too long for an entry, one JSON object a line.

Read lazily: of the lines that have gone by only the paths are kept, to find those that collide.
"""

from __future__ import annotations

import re
import sys
import urllib.parse
from collections.abc import Iterable, Iterator
from io import BufferedIOBase, BufferedReader

import msgspec

from dscache.digest import Digest
from dscache.errors import DscacheError, InvalidFile, UsageError
from dscache.malformed import MALFORMED
from dscache.model import Artifact, Manifest, Occupied, check_path
from dscache.registry.entries import absolute
from dscache.registry.rules import Problem, located, url_error
from dscache.registry.tables import ManifestLine

_MAX_LINE = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
#: Paths that are their own quotation; nearly all are.
_UNQUOTED = re.compile(r"[A-Za-z0-9_.~/-]*")


def read(path: str, manifest: Manifest, *, local: bool) -> Iterator[Artifact]:
    """The artifacts that the manifest file at `path` lists.

    Raises:
        InvalidFile: a line is malformed, breaks a rule of entries, or collides with an earlier
            one; names the line.
        UnsafeError: a path or URL leads where it must not.
    """
    name = manifest.file.path
    decode = msgspec.json.Decoder(ManifestLine).decode
    lines = _Lines(manifest, local)
    for number, raw in _numbered(path, name):
        try:
            artifact = lines.artifact(decode(raw))
        except MALFORMED as error:
            raise located(InvalidFile(str(error)), f"{name}, line {number}") from error
        except _Broken as broken:
            raise broken.problem.located(f"{name}, line {number}") from broken
        yield artifact


def _numbered(path: str, name: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, with their numbers."""
    with open(path, "rb") as file:
        text, damage = _unpacked(file)
        number = 0
        while True:
            try:
                raw = text.readline(_MAX_LINE)
            except damage as trouble:
                raise located(InvalidFile(f"damaged: {trouble}"), name) from trouble
            if not raw:
                return
            number += 1
            if len(raw) == _MAX_LINE:
                error = InvalidFile(f"longer than {_MAX_LINE} bytes")
                raise located(error, f"{name}, line {number}")
            if not raw.isspace():
                yield number, raw


def _unpacked(file: BufferedReader) -> tuple[BufferedIOBase, tuple[type[Exception], ...]]:
    """The text, compression told by the first bytes, and what reading may raise.

    The packages are imported here, since most calls meet no manifest.
    """
    start = file.peek(4)
    if start.startswith(_GZIP):
        import gzip
        import zlib

        return gzip.open(file), (OSError, EOFError, zlib.error)
    if start.startswith(_ZSTD):
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        return zstd.open(file), (OSError, EOFError, zstd.ZstdError)
    return file, (OSError,)


class _Broken(Exception):
    """A line breaks a rule."""

    def __init__(self, key: str, error: DscacheError) -> None:
        super().__init__(key)
        self.problem = Problem(key, error)


class _Lines:
    """Makes artifacts of lines. The base URLs were checked with the entry, but for one rule: http
    does not do where a line has only a weak hash.
    """

    def __init__(self, manifest: Manifest, local: bool) -> None:
        self._manifest = manifest
        self._local = local
        self._occupied = Occupied()
        self._bases_do_for_weak = False

    def artifact(self, line: ManifestLine) -> Artifact:
        path = line.path
        try:
            check_path(path)
        except DscacheError as error:
            raise _Broken("path", error) from error
        if (other := self._occupied.add(path)) is not None:
            both = f"{path!r} and {other!r} cannot both be stored"
            raise _Broken("path", InvalidFile(both))
        try:
            digest = Digest.parse(line.hash)
        except UsageError as error:
            raise _Broken("hash", InvalidFile(str(error))) from error
        return Artifact(path, digest, line.size, urls=self._urls(line, digest.weak))

    def _urls(self, line: ManifestLine, weak: bool) -> tuple[str, ...]:
        if line.urls:
            self._check(line.urls, weak)
            return tuple([absolute(url, self._manifest.base) for url in line.urls])
        if not self._manifest.base_urls:
            raise _Broken("urls", InvalidFile("neither the line nor the entry says where it is"))
        if weak and not self._bases_do_for_weak:
            self._check(self._manifest.base_urls, weak)
            self._bases_do_for_weak = True
        quoted = line.path if _UNQUOTED.fullmatch(line.path) else urllib.parse.quote(line.path)
        return tuple([each + quoted for each in self._manifest.base_urls])

    def _check(self, urls: Iterable[str], weak: bool) -> None:
        for url in urls:
            if wrong := url_error(url, local=self._local, only_weak=weak):
                raise _Broken("urls", wrong)
