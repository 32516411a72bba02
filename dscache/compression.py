"""Compressed files: told by their first bytes, and opened. Knows no archive and no store."""

from __future__ import annotations

import sys
from io import BufferedIOBase
from typing import IO, Any, cast

_MAGIC = {
    b"\x1f\x8b": "gzip",  # RFC 1952, 2.3.1
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",  # xz-file-format, 2.1.1.1
    b"\x28\xb5\x2f\xfd": "zstd",  # RFC 8878, 3.1.1
}
#: More than this at the start of a file is not needed to tell.
ENOUGH = 6


def told_by(start: bytes) -> str:
    """The compression of a file that begins so: a recipe's name, or "" for none that is known."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


def opened(
    file: BufferedIOBase, compression: str
) -> tuple[BufferedIOBase, tuple[type[Exception], ...]]:
    """The plain bytes of a file, and what reading them may raise where they are damaged.

    The packages are imported here, since few calls meet a compressed file. zlib-ng inflates at
    twice the speed of zlib and more.
    """
    if compression == "gzip":
        from zlib_ng import gzip_ng, zlib_ng

        damage = cast(type[Exception], zlib_ng.error)  # which its stubs take for a value
        return cast(Any, gzip_ng).GzipFile(fileobj=file), (OSError, EOFError, damage)
    if compression == "bzip2":
        import bz2

        return bz2.open(file, "rb"), (OSError, EOFError)
    if compression == "xz":
        import lzma

        return lzma.LZMAFile(cast(IO[bytes], file)), (OSError, EOFError, lzma.LZMAError)
    if compression == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        return cast(BufferedIOBase, zstd.open(file, "rb")), (OSError, EOFError, zstd.ZstdError)
    return file, (OSError,)
