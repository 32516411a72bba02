"""Formats: what a file is, told by its first bytes, and whether its recipe fits."""

from __future__ import annotations

from dscache.compression import told_by
from dscache.errors import InvalidFile
from dscache.recipes import SINGLE, foreign
from dscache.unpack.growing import Windows

#: What has to be read before its format is known: a tar header with its magic.
_ENOUGH = 512
_TAR_MAGIC = (257, b"ustar")  # POSIX.1-1988, and GNU tar
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # a member, or the end of an empty archive
_FOREIGN = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "rar"}


def check_known(start: bytes, name: str) -> None:
    """Make sure that a file that begins so is none of the formats that no recipe unpacks.

    Raises:
        InvalidFile: it is; says which program unpacks it.
    """
    for magic, kind in _FOREIGN.items():
        if start.startswith(magic):
            raise foreign(name, kind)


def is_zip(recipe: str, start: bytes) -> bool:
    """True if a file that begins so is to be unpacked as a zip archive."""
    return recipe == "zip" or (recipe == "auto" and start.startswith(_ZIP_MAGIC))


def check_is_tar(stream: Windows, name: str) -> None:
    """Make sure that what `auto` could not tell by its name is a tar archive.

    Raises:
        InvalidFile: it is not.
    """
    offset, magic = _TAR_MAGIC
    start = bytes(stream.peek(_ENOUGH))
    if start[offset : offset + len(magic)] != magic:
        raise InvalidFile(
            f"{name} is no archive that `auto` knows",
            hint="say how to unpack it: tar, zip, gzip, bzip2, xz or zstd; "
            "or fetch it without `unpack`",
            file=name,
        )


def compression(recipe: str, start: bytes) -> str:
    """The compression to take off a file that begins so.

    Raises:
        ValueError: the recipe wants another one.
    """
    found = told_by(start)
    if recipe in SINGLE and found != recipe:
        raise ValueError(f"it is no {recipe} file")
    return found
