"""Tar: a loop over the headers; the bytes go from the stream to the files."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import cast

from dscache import disk
from dscache.store.drafts import Draft, NewFile
from dscache.unpack.crew import Crew
from dscache.unpack.growing import WINDOW, Windows
from dscache.unpack.headers import headers
from dscache.unpack.rules import Rules, link_target, special

#: Files up to this size are written by other threads, those of a window at a time.
_SMALL = 2 << 20
#: Windows that wait to be written; more threads than these are not kept busy by one that reads.
_SPARE = 4
_LABEL = b"V"  # GNU tar's name for the archive itself

#: Path, bytes, and whether it may be executed.
_File = tuple[str, memoryview, bool]


def unpack(stream: Windows, draft: Draft, rules: Rules, crew: Crew) -> None:
    """Unpack all members, the small ones by the crew.

    Raises:
        UnsafeError: a member is refused.
        any of `headers.DAMAGE`: the archive is damaged.
    """
    small = _Small(draft, crew, stream.look)
    if not crew.is_alone:
        stream.turn = small.turn
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
            if member.size <= _SMALL and member.sparse is None:
                small.add(path, stream, member)
            else:
                _large(stream, draft, path, member)
        elif member.issym():
            draft.add_link(path, link_target(path, member.linkname))
        elif member.islnk():
            small.finish()
            earlier = rules.twin(path, member.linkname)
            rules.bytes(path, draft.size_of(earlier))  # to hash, and to copy if need be
            draft.add_twin(path, earlier)
        else:
            raise special(path)
    small.finish()


class _Small:
    """Small files, which a crew writes while the next ones are read.

    They are written from where they were read to. The stream goes on in another buffer, and gets
    one back when all files in it are written.
    """

    def __init__(self, draft: Draft, crew: Crew, look: Callable[[], None]) -> None:
        self._draft = draft
        self._crew = crew
        self._look = look
        self._batch: list[_File] = []
        self._spare: SimpleQueue[memoryview] = SimpleQueue()
        self._made = 0

    def add(self, path: str, stream: Windows, member: tarfile.TarInfo) -> None:
        """Take the file that comes next in the stream."""
        data = stream.peek(member.size)
        if len(data) < member.size:
            raise EOFError("the archive ends in the middle of a member")
        self._draft.enter(path.rpartition("/")[0])  # folders are made by one thread only
        self._batch.append((path, data, bool(member.mode & 0o100)))
        if self._crew.is_alone:
            self._write(self._taken())
        stream.skip(member.size)

    def finish(self) -> None:
        """Have all of them written."""
        self._write(self._taken())
        self._crew.wait()

    def turn(self, buffer: memoryview) -> memoryview:
        """Have what was taken from a buffer written; return one that is free."""
        batch = self._taken()
        if not batch:
            return buffer

        def write() -> None:
            try:
                self._write(batch)
            finally:
                self._spare.put(buffer)

        self._crew.do(write)
        if self._made < _SPARE and self._spare.empty():
            self._made += 1
            return disk.buffer(WINDOW)
        return self._spare.get()

    def _taken(self) -> list[_File]:
        batch, self._batch = self._batch, []
        return batch

    def _write(self, batch: Sequence[_File]) -> None:
        for path, data, program in batch:
            self._look()  # a window may hold thousands, and the disk be slow
            self._draft.add_file(path, data, program=program)


def _large(stream: Windows, draft: Draft, path: str, member: tarfile.TarInfo) -> None:
    size = member.size
    # typeshed takes the list of runs (offset, bytes) for an int.
    sparse = cast(Sequence[tuple[int, int]] | None, member.sparse)
    runs = [(0, size)] if sparse is None else sparse
    with draft.new_file(path, program=bool(member.mode & 0o100)) as file:
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
