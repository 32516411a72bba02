"""Tar: a loop over the headers; the bytes go from the stream to the files."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from typing import cast

from dscache.store.drafts import Draft, NewFile
from dscache.unpack.growing import Windows
from dscache.unpack.headers import headers
from dscache.unpack.rules import Rules, link_target, special

#: Files up to this size are handed over in one piece.
_WHOLE = 2 << 20
_LABEL = b"V"  # GNU tar's name for the archive itself


def unpack(stream: Windows, draft: Draft, rules: Rules) -> None:
    """Unpack all members.

    Raises:
        UnsafeError: a member is refused.
        any of `headers.DAMAGE`: the archive is damaged.
    """
    for member in headers(stream, rules):
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
