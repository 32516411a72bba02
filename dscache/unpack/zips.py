"""Zip: zipfile reads the directory at the end of the archive, then threads inflate its members.

Members are read and inflated here: it takes a third of the time of zipfile's own reading, and never
more memory than a few pieces, where zipfile inflates bzip2 and LZMA without any bound.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO, Protocol, cast

from zlib_ng import zlib_ng

from dscache.errors import InvalidFile, UnsafeError
from dscache.store.drafts import Draft
from dscache.unpack.crew import Crew
from dscache.unpack.rules import Rules, check_kind, link_target

#: What reading a damaged archive raises.
DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    cast(type[Exception], zlib_ng.error),  # which its stubs take for a value
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OSError,  # of bz2; those of the disk have a number
)

_HEADER = struct.Struct("<4s2B4HL2L2H")  # APPNOTE.TXT 4.3.7: the header before each member
_LZMA = struct.Struct("<2sHBL")  # 5.8.8
_LZMA_PROPERTIES = 5
_LEAST_WINDOW = 4096  # of liblzma
_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1
_UTF8 = 0x800
_UNIX = 3  # APPNOTE.TXT 4.4.2.2
_RAW_DEFLATE = -15  # zlib.h: the largest window, no header
#: Members up to this size are inflated in one piece.
_WHOLE = 4 << 20
_PIECE = 1 << 20
_LONGEST_LINK = 4096
_BUFFER = 256 << 10
#: What one thread takes at a time.
_BATCH_MEMBERS, _BATCH_BYTES = 64, 8 << 20


_Named = tuple[str, zipfile.ZipInfo]


def unpack(path: str, draft: Draft, rules: Rules, advance: Callable[[int], None]) -> None:
    """Unpack all members, on all cores.

    Args:
        advance: called with the bytes of each member; raises if nobody wants the rest.

    Raises:
        UnsafeError: a member is refused.
        InvalidFile: one is encrypted, or compressed in a way that nobody here knows.
        any of DAMAGE: the archive is damaged.
    """
    with _opened(path) as archive, open(path, "rb", buffering=_BUFFER) as source:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        _check_overlaps(members, archive.start_dir)
        files = _prepare(source, members, draft, rules)

        def take(batch: Sequence[_Named]) -> None:
            with open(path, "rb", buffering=_BUFFER) as file:
                for name, member in batch:
                    advance(member.compress_size)
                    _extract(file, member, name, draft, advance)

        with Crew() as crew:
            for batch in _batches(files):
                crew.do(partial(take, batch))


def _opened(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except NotImplementedError as error:
        raise InvalidFile(
            f"the archive needs what nobody here knows: {error}",
            hint="fetch it without `unpack`, and unpack it with another program",
        ) from error


def _check_overlaps(members: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuse members that share bytes, by which small archives become endless.

    `members` are in the order of their headers, `end` is where the directory begins.
    https://www.bamsoftware.com/hacks/zipbomb/
    """
    if members and members[0].header_offset < 0:
        raise zipfile.BadZipFile("members begin before the archive")
    following = [*(each.header_offset for each in members), end][1:]
    for member, next_offset in zip(members, following, strict=True):
        least = _HEADER.size + len(member.orig_filename) + member.compress_size
        if member.header_offset + least > next_offset:
            raise UnsafeError(
                f"member {member.orig_filename!r} overlaps another part of the archive",
                member=member.orig_filename,
            )


def _prepare(
    file: BinaryIO, members: Sequence[zipfile.ZipInfo], draft: Draft, rules: Rules
) -> list[_Named]:
    """Make all folders and links; return the files with their paths. Nothing is too much then."""
    files = []
    for member in members:
        # What zipfile calls `filename` ends at a NUL. Old programs wrote backslashes.
        written = member.orig_filename.replace("\\", "/")
        path, mode = rules.name(written), _mode(member)
        check_kind(path, mode)
        if member.flag_bits & _ENCRYPTED:
            raise InvalidFile(
                f"member {path!r} is encrypted",
                hint="fetch the archive without `unpack`, and unpack it with its password",
                member=path,
            )
        if written.endswith("/") or stat.S_ISDIR(mode):
            if path:
                draft.add_folder(path)
            continue
        rules.check_named(path, written)
        rules.bytes(path, member.file_size)
        if stat.S_ISLNK(mode):
            if member.file_size > _LONGEST_LINK or member.compress_size > _WHOLE:
                raise zipfile.BadZipFile(f"link {path!r} holds {member.file_size} bytes")
            _go_to(file, member)
            target = _whole(file, member).decode("utf-8", "surrogateescape")
            draft.add_link(path, link_target(path, target))
        else:
            draft.enter(path.rpartition("/")[0])
            files.append((path, member))
    return files


def _mode(member: zipfile.ZipInfo) -> int:
    return member.external_attr >> 16 if member.create_system == _UNIX else 0


def _batches(
    files: Sequence[tuple[str, zipfile.ZipInfo]],
) -> Iterator[list[tuple[str, zipfile.ZipInfo]]]:
    batch, size = [], 0
    for each in files:
        batch.append(each)
        size += each[1].file_size
        if len(batch) >= _BATCH_MEMBERS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _extract(
    file: BinaryIO,
    member: zipfile.ZipInfo,
    path: str,
    draft: Draft,
    advance: Callable[[int], None],
) -> None:
    program = bool(_mode(member) & 0o100)
    _go_to(file, member)
    if max(member.file_size, member.compress_size) <= _WHOLE:
        draft.add_file(path, _whole(file, member), program=program)
        return
    size = crc = 0
    with draft.new_file(path, program=program) as out:
        for data in _pieces(file, member):
            advance(0)
            out.write(data)
            size += len(data)
            crc = zlib_ng.crc32(data, crc)
        _check(member, size, crc)


def _go_to(file: BinaryIO, member: zipfile.ZipInfo) -> None:
    """Go to the first byte of a member, whose own header must agree with the directory."""
    file.seek(member.header_offset)
    magic, *_, name_length, extra_length = _HEADER.unpack(_read(file, _HEADER.size))
    name = _read(file, name_length).decode("utf-8" if member.flag_bits & _UTF8 else "cp437")
    if magic != _MAGIC or name != member.orig_filename:
        raise zipfile.BadZipFile(
            f"member {member.orig_filename!r} has another name in its own header"
        )
    file.seek(extra_length, os.SEEK_CUR)


def _whole(file: BinaryIO, member: zipfile.ZipInfo) -> bytes:
    if member.compress_type == zipfile.ZIP_STORED:
        data = _read(file, member.compress_size)
    elif member.compress_type == zipfile.ZIP_DEFLATED:
        inflate = zlib_ng.decompressobj(_RAW_DEFLATE)
        # One byte more than it should be is enough to see that it is wrong.
        data = inflate.decompress(_read(file, member.compress_size), member.file_size + 1)
    else:
        data = b"".join(_pieces(file, member))
    _check(member, len(data), zlib_ng.crc32(data))
    return data


def _pieces(file: BinaryIO, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of a member, but one more than it should have at most."""
    decoder, taken = _decoder(file, member)
    left, room = member.compress_size - taken, member.file_size + 1
    while room > 0 and not decoder.eof:
        data = b""
        if decoder.needs_input:
            if left <= 0:
                return
            data = _read(file, min(left, _PIECE))
            left -= len(data)
        data = decoder.decompress(data, min(room, _PIECE))
        room -= len(data)
        yield data


class _Decoder(Protocol):
    """Takes a compression off, with bounds on what comes out at once."""

    @property
    def needs_input(self) -> bool: ...
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Stored:
    """No compression. What it is given is never more than what may come out."""

    needs_input = True
    eof = False

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return data


class _Deflated:
    """Deflate, which keeps what it could not take in as the others do."""

    def __init__(self) -> None:
        self._inflate = zlib_ng.decompressobj(_RAW_DEFLATE)
        self._is_full = False

    @property
    def needs_input(self) -> bool:
        # What is as much as may be is perhaps not all that the bytes so far make.
        return not (self._inflate.unconsumed_tail or self._is_full)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        made = self._inflate.decompress(self._inflate.unconsumed_tail or data, max_length)
        self._is_full = len(made) == max_length
        return made


def _decoder(file: BinaryIO, member: zipfile.ZipInfo) -> tuple[_Decoder, int]:
    """What decodes a member, and how many of its bytes have been read for that."""
    kind = member.compress_type
    if kind == zipfile.ZIP_STORED:
        return _Stored(), 0
    if kind == zipfile.ZIP_DEFLATED:
        return _Deflated(), 0
    if kind == zipfile.ZIP_BZIP2:
        import bz2  # late: few archives need it

        return bz2.BZ2Decompressor(), 0
    if kind == zipfile.ZIP_LZMA:
        return _lzma(file, member)
    raise InvalidFile(
        f"member {member.orig_filename!r} is compressed in a way that nobody here knows ({kind})",
        hint="fetch the archive without `unpack`, and unpack it with another program",
        member=member.orig_filename,
    )


def _lzma(file: BinaryIO, member: zipfile.ZipInfo) -> tuple[_Decoder, int]:
    """The decoder for what begins with a version and the properties (APPNOTE.TXT 5.8.8)."""
    import lzma  # late: as above

    _, length, packed, window = _LZMA.unpack(_read(file, _LZMA.size))
    rest, lc = divmod(packed, 9)
    pb, lp = divmod(rest, 5)
    if length != _LZMA_PROPERTIES or lc + lp > 4 or pb > 4:
        raise zipfile.BadZipFile(f"member {member.orig_filename!r} has wrong properties")
    # A window that is larger than the file would only cost memory.
    size = max(min(window, member.file_size), _LEAST_WINDOW)
    chain = [{"id": lzma.FILTER_LZMA1, "dict_size": size, "lc": lc, "lp": lp, "pb": pb}]
    return _Lzma(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain), lzma.LZMAError), _LZMA.size


class _Lzma:
    """LZMA, whose errors are here as others are."""

    def __init__(self, decoder: _Decoder, damage: type[Exception]) -> None:
        self._decoder = decoder
        self._damage = damage

    @property
    def needs_input(self) -> bool:
        return self._decoder.needs_input

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        try:
            return self._decoder.decompress(data, max_length)
        except self._damage as error:
            raise zipfile.BadZipFile(str(error)) from error


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError("the archive ends in the middle of a member")
    return data


def _check(member: zipfile.ZipInfo, size: int, crc: int) -> None:
    if size != member.file_size or crc != member.CRC:
        what = "sum" if size == member.file_size else "size"
        raise zipfile.BadZipFile(f"member {member.orig_filename!r} has another {what} than it says")
