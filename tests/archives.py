"""Archives for tests, honest and hostile: what they hold is said once, and packed in every format.

    packed("tar.gz", File("a/b", b"x"), Link("c", "a/b"))

The writers are those of Python's own tarfile and zipfile, which take any name; what these refuse to
write is made byte by byte.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 512
TARS = ("tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst")
ZIPS = {
    "zip": zipfile.ZIP_STORED,
    "zip-deflated": zipfile.ZIP_DEFLATED,
    "zip-bzip2": zipfile.ZIP_BZIP2,
    "zip-lzma": zipfile.ZIP_LZMA,
}
#: What nearly all archives are.
USUAL = (*TARS, "zip", "zip-deflated")
ALL = (*TARS, *ZIPS)
SINGLES = ("gzip", "bzip2", "xz", "zstd")
_COMPRESSION = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}


@dataclass(frozen=True, slots=True)
class File:
    """A file of these bytes."""

    name: str
    data: bytes = b""
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder."""

    name: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Twin:
    """A hard link to an earlier file; zip has none."""

    name: str
    earlier: str
    mode: int = 0o644  # which tarfile believes for all names of the file


@dataclass(frozen=True, slots=True)
class Special:
    """A device, pipe or socket, by its bits of `st_mode`; tar has no sockets."""

    name: str
    kind: int


Entry = File | Folder | Link | Twin | Special

_TAR_SPECIAL = {
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def recipe_of(kind: str) -> str:
    """The recipe that unpacks what `packed` makes."""
    return kind.partition(".")[0].partition("-")[0]


def packed(kind: str, *entries: Entry) -> bytes:
    """An archive of one of the kinds in `ALL`."""
    if kind in ZIPS:
        return zip_of(*entries, method=ZIPS[kind])
    return wrapped(kind, tar_of(*entries))


def wrapped(kind: str, tar: bytes) -> bytes:
    """A tar archive, compressed as its kind says."""
    suffix = kind.partition(".")[2]
    return compressed(_COMPRESSION[suffix], tar) if suffix else tar


def compressed(recipe: str, data: bytes) -> bytes:
    """A single compressed file."""
    if recipe == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if recipe == "bzip2":
        return bz2.compress(data)
    if recipe == "xz":
        return lzma.compress(data, preset=1)
    return zstd.compress(data)


def zstd_of(data: bytes, *, window_log: int) -> bytes:
    """A zstd file whose reader has to keep so much of what has been."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return packer.compress(data) + packer.flush()


# --- tar


def tar_of(
    *entries: Entry,
    format: int = tarfile.PAX_FORMAT,  # noqa: A002 - tarfile's own word
    pax: Mapping[str, str] | None = None,
) -> bytes:
    """A tar archive; `pax` are extended headers that each member is given."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for entry in entries:
            info = _tar_info(entry)
            info.pax_headers = dict(pax or {})
            data = entry.data if isinstance(entry, File) else b""
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _tar_info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.name)
    if isinstance(entry, File):
        info.size, info.mode = len(entry.data), entry.mode
    elif isinstance(entry, Folder):
        info.type, info.mode = tarfile.DIRTYPE, entry.mode
    elif isinstance(entry, Link):
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    elif isinstance(entry, Twin):
        info.type, info.linkname, info.mode = tarfile.LNKTYPE, entry.earlier, entry.mode
    else:
        info.type = _TAR_SPECIAL[entry.kind]
    return info


def tar_header(
    name: str, size: int, kind: bytes = tarfile.REGTYPE, gnu: bytes = b"", linkname: str = ""
) -> bytes:
    """One block; `gnu` takes the place of what stands from byte 345 on."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, linkname
    block = info.tobuf(tarfile.GNU_FORMAT)
    return summed(block[:345] + gnu + block[345 + len(gnu) :])


def summed(block: bytes) -> bytes:
    """A header with the sum that it should have."""
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def pax_block(records: Iterable[tuple[str, str]], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header of these records, which may well be the same key twice."""
    data = b"".join(pax_record(key, value) for key, value in records)
    return tar_header("pax", len(data), kind) + padded(data)


def pax_record(key: str, value: str) -> bytes:
    """One record, its length first."""
    rest = f" {key}={value}\n".encode("utf-8", "surrogateescape")
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def padded(data: bytes) -> bytes:
    """Whole blocks."""
    return data + bytes(-len(data) % BLOCK)


END = bytes(2 * BLOCK)  # of a tar archive


# --- zip


class Pipe(io.RawIOBase):
    """What is written to it cannot be gone back to, so that zipfile writes data descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.data += data
        return len(data)


def zip_of(
    *entries: Entry,
    method: int = zipfile.ZIP_STORED,
    zip64: bool = False,
    piped: bool = False,
) -> bytes:
    """A zip archive, made as on Unix."""
    pipe, buffer = Pipe(), io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),  # of names that stand there twice
        zipfile.ZipFile(cast(IO[bytes], pipe if piped else buffer), "w", method) as archive,
    ):
        for entry in entries:
            info, data = _zip_info(entry)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as file:
                file.write(data)
    return bytes(pipe.data) if piped else buffer.getvalue()


def _zip_info(entry: Entry) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = entry.name  # the constructor would end it at a NUL
    data = b""
    if isinstance(entry, File):
        mode, data = stat.S_IFREG | entry.mode, entry.data
    elif isinstance(entry, Folder):
        mode = stat.S_IFDIR | entry.mode
        info.filename = entry.name.rstrip("/") + "/"
    elif isinstance(entry, Link):
        mode, data = stat.S_IFLNK | 0o777, entry.target.encode("utf-8", "surrogateescape")
    elif isinstance(entry, Special):
        mode = entry.kind | 0o644
    else:
        raise TypeError("zip knows no hard links")
    info.create_system = 3
    info.external_attr = mode << 16
    return info, data


_LOCAL = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT 4.3.7
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END = struct.Struct("<4s4H2LH")  # 4.3.16


@dataclass
class RawZip:
    """A zip archive made byte by byte, so that its two headers may contradict each other."""

    body: bytes = b""
    directory: bytes = b""
    count: int = 0

    def local(self, name: bytes, data: bytes, method: int = 0, extra: bytes = b"") -> int:
        """Write a member before the directory; return where it begins. Its sum and sizes are 0."""
        at = len(self.body)
        self.body += local_header(name, method, extra) + data
        return at

    def central(
        self,
        name: bytes,
        at: int,
        sizes: tuple[int, int],
        crc: int = 0,
        *,
        method: int = 0,
        flags: int = 0,
        version: int = 20,
        mode: int = 0o100644,
    ) -> None:
        """Write a row of the directory; `sizes` are those of the packed and the plain bytes."""
        self.directory += _CENTRAL.pack(
            b"PK\1\2", 0x314, version, flags, method, 0, 0x21, crc, *sizes,
            len(name), 0, 0, 0, 0, mode << 16, at,
        ) + name  # fmt: skip
        self.count += 1

    def add(self, name: bytes, data: bytes, packed_as: bytes, method: int, size: int) -> None:
        """A member whose bytes, sum and method are right, and whose size is what is said."""
        at = self.local(name, packed_as, method)
        self.central(name, at, (len(packed_as), size), zlib.crc32(data), method=method)

    def bytes(self, *, offset: int = 0, comment: bytes = b"") -> bytes:
        """The archive; `offset` is added to where the directory is said to be."""
        return (
            self.body
            + self.directory
            + _END.pack(
                b"PK\5\6", 0, 0, self.count, self.count, len(self.directory),
                len(self.body) + offset, len(comment),
            )
            + comment
        )  # fmt: skip


def local_header(name: bytes, method: int = 0, extra: bytes = b"", extra_length: int = 0) -> bytes:
    """The header before a member, whose extra field may be said to be longer than it is."""
    length = extra_length or len(extra)
    return _LOCAL.pack(b"PK\3\4", 20, 0, method, 0, 0x21, 0, 0, 0, len(name), length) + name + extra


def deflated(data: bytes) -> bytes:
    """Bytes as zip has them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()
