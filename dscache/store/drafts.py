"""Drafts: trees in the making. A draft is a folder that nobody else knows, until it is published.

Nothing is ever written through a name that the draft has not made itself: every folder on the way
is one of its own, every file is new. So no earlier member, be it a symbolic link or a name that
this filesystem takes for the same, can lead a later one elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dscache import copying, filesystem
from dscache.digest import fast_sum, fast_sum_of, hasher
from dscache.errors import UnsafeError
from dscache.store.members import FILE, FOLDER, LINK, PROGRAM, Listed, Listing, Member

FILES, MEMBERS, SUMMARY = "files", "members", "tree.json"

#: What systems say to a name that they cannot have.
_BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP})
_HOLE = bytes(1 << 20)


class Draft:
    """A folder that is being filled.

    Files may be added from several threads once their folders have been made (`enter`). What goes
    wrong with the disk comes as the operating system's error.

    Attributes:
        folder: all that belongs to the draft.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._root = f"{folder}/{FILES}"
        self._folders = {""}
        filesystem.new_folder(self._root)
        self._listing = Listing(f"{folder}/{MEMBERS}")

    def add_folder(self, path: str) -> None:
        """Make a folder; that it was made before is fine."""
        if self.enter(path):
            self._listing.add(Member(path, FOLDER))

    def add_file(self, path: str, data: bytes | memoryview, *, program: bool = False) -> None:
        """Make a file of these bytes.

        Raises:
            UnsafeError: something stands there, or this system cannot have the name.
        """
        fd = self._create(path, program)
        try:
            filesystem.write(fd, (data,), 0)
        finally:
            os.close(fd)
        self._note_file(path, program, len(data), fast_sum(data))

    @contextmanager
    def new_file(self, path: str, *, program: bool = False) -> Iterator[NewFile]:
        """A file whose bytes come one after the other. Raises as `add_file`."""
        fd = self._create(path, program)
        try:
            file = NewFile(fd)
            yield file
            file.end()
        finally:
            os.close(fd)
        self._note_file(path, program, file.size, file.xxh3_128)

    def add_link(self, path: str, target: str) -> None:
        """Make a symbolic link, whose target the caller has checked. Raises as `add_file`."""
        self.enter(path.rpartition("/")[0])
        try:
            filesystem.symlink(target, f"{self._root}/{path}")
        except (OSError, ValueError) as error:
            _judge(path, error)
            raise
        self._listing.add(Member(path, LINK, target=target))

    def add_twin(self, path: str, earlier: str) -> None:
        """Make another name of an earlier file.

        Raises:
            UnsafeError: there is no such file; or as `add_file`.
        """
        self.enter(path.rpartition("/")[0])
        source = f"{self._root}/{earlier}"
        if not self._has_file(earlier):
            raise UnsafeError(
                f"member {path[:300]!r} is a link to {earlier[:300]!r}, which is no earlier file",
                member=path,
            )
        found = os.stat(source)
        program = bool(found.st_mode & stat.S_IXUSR)
        try:
            _link(source, f"{self._root}/{path}", program)
        except (OSError, ValueError) as error:
            _judge(path, error)
            raise
        self._note_file(path, program, found.st_size, fast_sum_of(source))

    def size_of(self, path: str) -> int:
        """Bytes of a file of the draft; 0 if there is no such file."""
        return os.stat(f"{self._root}/{path}").st_size if self._has_file(path) else 0

    def enter(self, folder: str) -> bool:
        """Make sure of a folder of the draft and of those on the way to it; True if it is new.

        Raises as `add_file`.
        """
        if folder in self._folders:
            return False
        end = 0
        while end != len(folder):
            end = folder.find("/", end + 1)
            end = len(folder) if end < 0 else end
            if (path := folder[:end]) not in self._folders:
                self._make_folder(path)
        return True

    def path(self, path: str) -> str:
        """Where a member is."""
        return f"{self._root}/{path}"

    def members(self) -> Iterator[Member]:
        """The members so far."""
        return self._listing.members()

    def remove(self, member: Member) -> None:
        """Take back a file."""
        filesystem.unlink(self.path(member.path))
        self._listing.remove(member)

    def close(self) -> Listed:
        """Write the list to its end; what is in it. Nothing can be added any more."""
        return self._listing.close()

    def discard(self) -> None:
        """Remove all of it, as far as the disk lets it be: an error that led here is not hidden."""
        with suppress(OSError):
            self._listing.discard()
            filesystem.remove_tree(self.folder)

    def _has_file(self, path: str) -> bool:
        is_ours = path.rpartition("/")[0] in self._folders
        return is_ours and _is_file(f"{self._root}/{path}")

    def _make_folder(self, path: str) -> None:
        try:
            filesystem.new_folder(f"{self._root}/{path}")
        except (OSError, ValueError) as error:
            _judge(path, error)
            raise
        self._folders.add(path)

    def _create(self, path: str, program: bool) -> int:
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            self.enter(folder)
        try:
            return filesystem.create(f"{self._root}/{path}", final=True, program=program)
        except (OSError, ValueError) as error:
            _judge(path, error)
            raise

    def _note_file(self, path: str, program: bool, size: int, xxh3_128: str) -> None:
        self._listing.add(Member(path, PROGRAM if program else FILE, size, xxh3_128))


class NewFile:
    """A file of a draft whose bytes are coming."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sum = hasher("xxh3_128")
        self.size = 0
        self._has_hole = False

    @property
    def xxh3_128(self) -> str:
        """Of the bytes so far, in hex."""
        return self._sum.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        filesystem.write(self._fd, (data,), self.size)
        self._sum.update(data)
        self.size += len(data)
        self._has_hole = False

    def skip(self, count: int) -> None:
        """Let the next bytes be zero, without taking room on the disk for them."""
        self.size += count
        self._has_hole = count > 0 or self._has_hole
        while count > 0:
            self._sum.update(_HOLE[:count])
            count -= len(_HOLE)

    def end(self) -> None:
        """Give the file its length, if it ends with zero bytes that were skipped."""
        if self._has_hole:
            filesystem.truncate(self._fd, self.size)


def _link(source: str, target: str, program: bool) -> None:
    """Another name of a file; a copy where this filesystem has no (or no more) hard links."""
    try:
        filesystem.link(source, target)
    except OSError as error:
        if error.errno not in copying.UNSUPPORTED:
            raise
        copying.copy(source, target, final=True, program=program)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _judge(path: str, error: OSError | ValueError) -> None:
    """Raise UnsafeError if what the system says is about the name of a member."""
    if isinstance(error, FileExistsError):
        raise UnsafeError(
            f"member {path!r} has the name of an earlier one, as this filesystem sees it",
            hint="a name stands there twice, or names differ only in case or Unicode form",
            member=path,
        ) from error
    if isinstance(error, ValueError) or error.errno in _BAD_NAME:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise UnsafeError(
            f"member {path[:300]!r} cannot be stored here: {reason}", member=path
        ) from error
