"""Tar: a loop over the headers, which tarfile reads; the bytes go from the stream to the files."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any, cast

from dscache.store.drafts import Draft, NewFile
from dscache.unpack.growing import Windows
from dscache.unpack.rules import Rules, link_target, special

#: What reading a damaged archive raises. tarfile calls itself for a header that extends another.
DAMAGE: tuple[type[Exception], ...] = (
    tarfile.TarError,
    ValueError,
    EOFError,
    OverflowError,
    RecursionError,
)

_BLOCK = 512
#: Files up to this size are handed over in one piece.
_WHOLE = 2 << 20
_LABEL = b"V"  # GNU tar's name for the archive itself
#: Bytes that the headers of one member may take: long names, attributes, the parts of sparse files.
_LONGEST = 4 << 20
#: Up to so many are not held against the limits.
_USUAL = 16 << 10
#: tarfile's patterns take the square of the time for these (CVE-2024-6232); no name has so many.
_DIGITS = re.compile(rb"[0-9]{256}")
#: What a global header says stays until the end of the archive.
_MOST_GLOBAL = 100


def unpack(stream: Windows, draft: Draft, rules: Rules) -> None:
    """Unpack all members.

    Raises:
        UnsafeError: a member is refused.
        any of DAMAGE: the archive is damaged.
    """
    for member in _headers(stream, rules):
        path = rules.name(member.name)
        if member.isdir():
            if path:
                draft.add_folder(path)
            continue
        if member.type == _LABEL:
            continue
        rules.check_named(path, member.name)
        if member.isreg():
            rules.bytes(path, member.size)
            _file(stream, draft, path, member)
        elif member.issym():
            draft.add_link(path, link_target(path, member.linkname))
        elif member.islnk():
            earlier = rules.twin(path, member.linkname)
            rules.bytes(path, draft.size_of(earlier))  # to hash, and to copy where links cannot be
            draft.add_twin(path, earlier)
        else:
            raise special(path)


class _Headers:
    """The stream as tarfile sees it, which reads nothing but headers."""

    def __init__(self, stream: Windows) -> None:
        self._stream = stream
        self.tell = stream.tell
        self.used = 0

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _LONGEST - self.used:
            raise ValueError(f"a header of {self.used + count} bytes")
        self.used += count
        data = self._stream.read(count)
        if count > _BLOCK and _DIGITS.search(data):
            raise ValueError("a header of nothing but digits")
        return data


def _headers(stream: Windows, rules: Rules) -> Iterator[tarfile.TarInfo]:
    """The headers of all members; what of a member has not been taken is left out."""
    headers = _Headers(stream)
    archive = tarfile.TarFile(
        fileobj=cast(Any, headers), mode="r", encoding="utf-8", errors="surrogateescape"
    )
    member = archive.next()  # read already
    while member is not None:
        if member.size < 0 or len(archive.pax_headers) > _MOST_GLOBAL:
            raise ValueError("a header makes no sense")
        if headers.used > _USUAL:
            rules.bytes(member.name, headers.used)
        yield member
        rest = archive.offset - stream.tell()
        if rest < 0:
            raise ValueError(f"member {member.name[:300]!r} has more parts than bytes")
        if rest >= _BLOCK:
            rules.bytes(member.name, rest)
        stream.skip(rest)
        if not any(stream.peek(_BLOCK)):
            return
        headers.used = 0
        member = tarfile.TarInfo.fromtarfile(archive)


def _file(stream: Windows, draft: Draft, path: str, member: tarfile.TarInfo) -> None:
    size, program = member.size, bool(member.mode & 0o100)
    if size <= _WHOLE and member.sparse is None:
        data = stream.peek(size)
        if len(data) < size:
            raise EOFError("the archive ends in the middle of a member")
        draft.add_file(path, data, program=program)
        stream.skip(size)
        return
    # typeshed takes the list of runs (offset, bytes) for an int.
    sparse = cast(Sequence[tuple[int, int]] | None, member.sparse)
    runs = [(0, size)] if sparse is None else sparse
    with draft.new_file(path, program=program) as file:
        for offset, count in runs:
            if not count:
                continue  # what fills the table of an old header
            if count < 0 or not file.size <= offset <= size - count:
                raise ValueError(f"member {path!r} has parts that overlap")
            file.skip(offset - file.size)
            _copy(stream, file, count)
        file.skip(size - file.size)


def _copy(stream: Windows, file: NewFile, count: int) -> None:
    while count > 0:
        data = stream.take(count)
        file.write(data)
        count -= len(data)
