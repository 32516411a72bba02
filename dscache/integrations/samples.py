"""Samples: what a tar shard holds, grouped as WebDataset does.

Files that stand one after the other and have the same path up to the first dot of their name are
one sample; what comes after that dot is the key of a file in it. Nothing here knows where a shard
comes from.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self

from dscache.errors import InvalidFile

Sample = dict[str, Any]

#: As `base_plus_ext` of webdataset.tariterators has it, with its way of taking a hidden file in a
#: folder for one of the folder.
_NAME = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)")
_META = re.compile(r"__[^/]*__(?:/|\Z)")
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


def samples(path: Path, name: str) -> Iterator[Sample]:
    """The samples of a shard: `__key__`, `__url__` (the name that is given), and bytes by suffix.

    Suffixes are in lower case. Folders, links, files without a suffix, and names in double
    underscores, which are there for tools, are passed over.

    Raises:
        InvalidFile: it is no tar archive, damaged, or has two files of one key and suffix.
    """
    with open(path, "rb") as file:
        try:
            yield from _grouped(_members(file), name)
        except _DAMAGE as error:
            raise InvalidFile(
                f"{name} cannot be read as a tar archive: {error}",
                hint="if `dscache verify` finds nothing wrong here, tell its publisher",
                path=str(path),
            ) from error


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):
                raise
            # tarfile would take it for the end, and the rest would be missing without a word.
            raise tarfile.ReadError(f"broken off: {error}") from error


class _Archive(tarfile.TarFile):
    tarinfo = _Header
    members: list[tarfile.TarInfo]  # all that were read so far


def _members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with _Archive.open(fileobj=file, mode="r:*") as archive:
        while member := archive.next():
            content = archive.extractfile(member) if member.isreg() else None
            if content and not _META.match(member.name):
                yield member.name, content.read()
            archive.members.clear()  # else a long shard is all in memory in the end


def _grouped(members: Iterable[tuple[str, bytes]], name: str) -> Iterator[Sample]:
    sample: Sample = {}
    for path, data in members:
        parts = _NAME.fullmatch(path)
        if not parts:
            continue
        key, suffix = parts[1], parts[2].lower()
        if sample and sample["__key__"] != key:
            yield sample
            sample = {}
        if not sample:
            sample = {"__key__": key, "__url__": name}
        if suffix in sample:
            raise InvalidFile(
                f"{name} has two files {suffix!r} of the sample {key!r} one after the other",
                hint="WebDataset knows no such samples; tell its publisher",
            )
        sample[suffix] = data
    if sample:
        yield sample
