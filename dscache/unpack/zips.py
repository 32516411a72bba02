"""Zip: zipfile reads the directory at the end of the archive, then threads inflate its members.

What is stored or deflated, nearly everything, is read and inflated here, which takes a third of
the time of zipfile's own reading; zipfile does the rest.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import BinaryIO, cast

from isal import isal_zlib

from dscache.errors import InvalidFile, UnsafeError
from dscache.store.drafts import Draft
from dscache.unpack.rules import Rules, check_kind, link_target

#: What reading a damaged archive raises.
DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    cast(type[Exception], isal_zlib.error),  # which its stubs take for a value
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
)

_HEADER = struct.Struct("<4s2B4HL2L2H")  # APPNOTE.TXT 4.3.7: the header before each member
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
    with zipfile.ZipFile(path) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        _check_overlaps(members, archive.start_dir)
        files = _prepare(archive, members, draft, rules)

        def take(batch: Sequence[_Named]) -> None:
            with open(path, "rb", buffering=_BUFFER) as file:
                for name, member in batch:
                    advance(member.compress_size)
                    _extract(archive, file, member, name, draft)

        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="dscache-unzip") as executor:
            futures = [executor.submit(take, batch) for batch in _batches(files)]
            try:
                for future in futures:
                    future.result()
            finally:
                executor.shutdown(cancel_futures=True)


def _check_overlaps(members: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuse members that share bytes, by which small archives become endless.

    `members` are in the order of their headers, `end` is where the directory begins.
    https://www.bamsoftware.com/hacks/zipbomb/
    """
    following = [each.header_offset for each in members[1:]] + [end]
    for member, next_offset in zip(members, following, strict=True):
        least = _HEADER.size + len(member.orig_filename) + member.compress_size
        if member.header_offset + least > next_offset:
            raise UnsafeError(
                f"member {member.orig_filename!r} overlaps another part of the archive",
                member=member.orig_filename,
            )


def _prepare(
    archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], draft: Draft, rules: Rules
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
        rules.bytes(path, member.file_size)
        if stat.S_ISLNK(mode):
            if member.file_size > _LONGEST_LINK:
                raise zipfile.BadZipFile(f"link {path!r} holds {member.file_size} bytes")
            target = archive.read(member).decode("utf-8", "surrogateescape")
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
    archive: zipfile.ZipFile, file: BinaryIO, member: zipfile.ZipInfo, path: str, draft: Draft
) -> None:
    program = bool(_mode(member) & 0o100)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        _extract_slowly(archive, member, path, draft, program)
        return
    _go_to(file, member)
    if max(member.file_size, member.compress_size) <= _WHOLE:
        data = _plain(member, _read(file, member.compress_size))
        _check(member, len(data), isal_zlib.crc32(data))
        draft.add_file(path, data, program=program)
        return
    size = crc = 0
    with draft.new_file(path, program=program) as out:
        for data in _pieces(file, member):
            out.write(data)
            size += len(data)
            crc = isal_zlib.crc32(data, crc)
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


def _plain(member: zipfile.ZipInfo, data: bytes) -> bytes:
    if member.compress_type == zipfile.ZIP_STORED:
        return data
    # One byte more than it should be is enough to see that it is wrong.
    return isal_zlib.decompressobj(_RAW_DEFLATE).decompress(data, member.file_size + 1)


def _pieces(file: BinaryIO, member: zipfile.ZipInfo) -> Iterator[bytes]:
    left, room = member.compress_size, member.file_size + 1
    inflate = isal_zlib.decompressobj(_RAW_DEFLATE)
    rest = b""
    while room > 0 and (left or rest):
        if not rest:
            rest = _read(file, min(left, _PIECE))
            left -= len(rest)
        if member.compress_type == zipfile.ZIP_STORED:
            data, rest = rest, b""
        else:
            data = inflate.decompress(rest, min(room, _PIECE))
            rest = inflate.unconsumed_tail
        room -= len(data)
        yield data


def _extract_slowly(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str, draft: Draft, program: bool
) -> None:
    try:
        with closing(archive.open(member)) as source, draft.new_file(path, program=program) as out:
            while data := source.read(_PIECE):
                out.write(data)
            _check(member, out.size, member.CRC)  # zipfile has looked at the sum
    except NotImplementedError as error:
        raise InvalidFile(
            f"member {path!r} is compressed in a way that this Python does not know: {error}",
            hint="fetch the archive without `unpack`, and unpack it with another program",
            member=path,
        ) from error


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError("the archive ends in the middle of a member")
    return data


def _check(member: zipfile.ZipInfo, size: int, crc: int) -> None:
    if size != member.file_size or crc != member.CRC:
        what = "sum" if size == member.file_size else "size"
        raise zipfile.BadZipFile(f"member {member.orig_filename!r} has another {what} than it says")
