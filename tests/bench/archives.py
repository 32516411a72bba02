"""Archives to unpack, always of the same bytes: images, text and noise, small texts.

Noise stands for what is compressed already, and words drawn from a few hundred for text.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from tests.bench.payloads import File

IMAGE, MIXED, TEXT = 100 << 10, 1 << 20, 40_000

_LEVEL = 6  # the default of gzip and zip
_LEVEL_OF_ZSTD = 3  # and that of zstd
_LEVEL_OF_XZ = 0  # xz's own, 6, takes minutes to make what it unpacks no slower
_LETTERS = b"etaoinshrdlucmfwypvbgk"


@dataclass(frozen=True)
class Archive:
    """A file that holds `count` files of `each` bytes, and the recipe to unpack it."""

    file: File
    recipe: str
    count: int
    each: int


def images(path: Path, count: int) -> Archive:
    """A tar of files that cannot be compressed."""
    noise = Random(0).randbytes(IMAGE)
    members = (
        # No two are alike, and random bytes are made only once.
        (f"validation_{number:08}.jpeg", number.to_bytes(8, "big") + noise[8:])
        for number in range(1, count + 1)
    )
    with path.open("wb") as file:
        _tar(file, members)
    return Archive(_described(path), "tar", count, IMAGE)


def mixed(path: Path, count: int) -> Archive:
    """A compressed tar, half text and half noise; the path's suffix says how it is compressed."""
    drawn = Random(0)
    makers: tuple[Callable[[int], bytes], ...] = (drawn.randbytes, Words(drawn).text)
    members = ((f"{number:05}.bin", makers[number % 2](MIXED)) for number in range(count))
    with path.open("wb") as file, _COMPRESSED[path.suffix](file) as stream:
        _tar(stream, members)
    return Archive(_described(path), "tar", count, MIXED)


def texts(path: Path, count: int) -> Archive:
    """A zip of small texts in folders of a hundred."""
    words = Words(Random(0))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for number in range(count):
            # A ZipInfo has a time of its own, always the same.
            member = zipfile.ZipInfo(f"texts/{number // 100:03}/{number:05}.txt")
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o100644 << 16
            archive.writestr(member, words.text(TEXT), compresslevel=_LEVEL)
    return Archive(_described(path), "zip", count, TEXT)


class Words:
    """Text of a vocabulary of 256 words."""

    def __init__(self, drawn: Random) -> None:
        self._drawn = drawn
        lengths = (drawn.randint(2, 9) for _ in range(256))
        self._words = [bytes(drawn.choices(_LETTERS, k=length)) + b" " for length in lengths]

    def text(self, size: int) -> bytes:
        """`size` bytes of it; a quarter as many words are more than enough."""
        return b"".join(map(self._words.__getitem__, self._drawn.randbytes(size // 4)))[:size]


def _tar(file: Any, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(fileobj=file, mode="w|") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _gzip(file: Any) -> AbstractContextManager[Any]:
    return gzip.GzipFile("", "wb", _LEVEL, file, mtime=0)


def _xz(file: Any) -> AbstractContextManager[Any]:
    return lzma.LZMAFile(file, "wb", preset=_LEVEL_OF_XZ)


def _zstd(file: Any) -> AbstractContextManager[Any]:
    module = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    opened: AbstractContextManager[Any] = module.ZstdFile(file, "wb", level=_LEVEL_OF_ZSTD)
    return opened


_COMPRESSED: dict[str, Callable[[Any], AbstractContextManager[Any]]] = {
    ".gz": _gzip,
    ".xz": _xz,
    ".zst": _zstd,
}


def _described(path: Path) -> File:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path, path.stat().st_size, found)
