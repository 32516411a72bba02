"""The one seam to the disk: every durable step of the program is a call of a function here.

Crash tests fail each call in turn, so nothing else in the package creates, writes, renames, links,
syncs or removes. Files are created with mode 0666 (0444 where they are final) and the umask
decides, never with mkstemp's 0600. This module knows no layout and no format.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

from dscache.errors import DscacheError, StorageError

Parsed = TypeVar("Parsed")

#: Errors that mean "this filesystem does not do that", as opposed to "it failed".
UNSUPPORTED = frozenset(
    {
        errno.EXDEV,
        errno.EPERM,
        errno.EACCES,
        errno.EMLINK,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.EINVAL,
        errno.ENOTTY,
    }
)
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

_WINDOWS = os.name == "nt"
_LINUX = sys.platform.startswith("linux")
_MACOS = sys.platform == "darwin"
_FICLONE = 0x40049409  # linux/fs.h: ioctl that shares the extents of one file with another
_NAMELESS = getattr(os, "O_TMPFILE", 0)  # of open: the file has no name; Linux only
_KEEP_SIZE = 1  # linux/falloc.h
_TMPFS = 0x01021994  # linux/magic.h
_COPY_CHUNK = 8 << 20
_MOST_CHUNKS = 1024  # limits.h: IOV_MAX, what one system call takes
# Windows refuses to replace a file that is read-only, or that somebody has open; readers of small
# files are quick. In seconds.
_PATIENCE = (0.01, 0.1, 1.0) if _WINDOWS else ()
_NANOSECONDS = 1_000_000_000
# A file changed this recently may change again within one tick of its timestamp.
_RACY = _NANOSECONDS // 20

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def create(path: str, *, final: bool = False, program: bool = False) -> int:
    """Create a file that must not exist and return its descriptor, open for reading and writing.

    `final` makes it read-only for everybody from the start; the descriptor can still write.
    `program` makes it executable.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY
    return os.open(path, flags, _mode(final, program))


def _mode(final: bool, program: bool) -> int:
    return (0o444 if final else 0o666) | (0o111 if program else 0)


@contextmanager
def created(path: str, *, final: bool = False) -> Iterator[int]:
    """The descriptor of a new file, closed at the end; the file is removed if an error comes."""
    fd = create(path, final=final)
    try:
        try:
            yield fd
        finally:
            os.close(fd)  # may fail too: network disks report there what a write could not do
    except BaseException:
        drop(path)
        raise


@contextmanager
def replacing(target: str) -> Iterator[int]:
    """The descriptor of a new file that at the end takes the place of `target` with one rename.

    If an error comes, `target` is left as it was.
    """
    temporary = f"{target}.{os.urandom(4).hex()}.tmp"
    with created(temporary) as fd:
        yield fd
    try:
        rename(temporary, target)
    except BaseException:
        drop(temporary)
        raise


def open_for_update(path: str) -> int:
    """Open an existing file of our own for reading and writing; one that was sealed, too."""
    try:
        return os.open(path, os.O_RDWR | _BINARY)
    except PermissionError:
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IRUSR | stat.S_IWUSR)
        return os.open(path, os.O_RDWR | _BINARY)


@contextmanager
def overwriting(path: str) -> Iterator[int]:
    """The descriptor of the file at `path`, made or emptied first, and closed at the end.

    If an error comes, the file is left empty: it may be somebody's device, or have other names.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _BINARY, 0o666)
    try:
        yield fd
    except BaseException:
        with suppress(OSError):  # which must not hide the error
            truncate(fd, 0)
        raise
    finally:
        os.close(fd)


@contextmanager
def unnamed(folder: str) -> Iterator[int]:
    """The descriptor of a file in `folder` that is gone at the end, even of a killed process."""
    import tempfile  # late: few downloads need it

    with tempfile.TemporaryFile(dir=folder) as file:
        yield file.fileno()


def write(fd: int, chunks: Sequence[bytes | memoryview], offset: int) -> int:
    """Write all of `chunks` one after the other at `offset`; return the bytes written."""
    total = sum(map(len, chunks))
    written = 0
    if 1 < len(chunks) <= _MOST_CHUNKS and hasattr(os, "pwritev"):
        written = os.pwritev(fd, chunks, offset)
    if written < total:
        rest = memoryview(chunks[0] if len(chunks) == 1 else b"".join(chunks))[written:]
        while rest:
            rest = rest[_write_some(fd, rest, offset + total - len(rest)) :]
    return total


def _write_some(fd: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


def reserve(fd: int, size: int) -> None:
    """Take the room on the disk for the first `size` bytes of a file, without making it longer.

    Does nothing where the filesystem cannot (NFS 4.1, ZFS, other systems than Linux), nor in
    memory (tmpfs), where it would touch every page at once: 0.4 s a GiB.

    Raises:
        OSError: ENOSPC or EDQUOT, the room is not there.
    """
    if not _LINUX:
        return
    import ctypes  # late: only what downloads needs it

    libc = ctypes.CDLL(None, use_errno=True)
    found = ctypes.create_string_buffer(256)  # struct statfs, which begins with the type
    if libc.fstatfs(fd, found) or ctypes.c_long.from_buffer(found).value == _TMPFS:
        return
    fallocate = getattr(libc, "fallocate64", libc.fallocate)
    if fallocate(fd, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)):
        number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(number, os.strerror(number))


def allocated(path: str) -> int:
    """Bytes of the disk that a file takes where its system tells, else its length."""
    found = os.stat(path)
    return found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size


def truncate(fd: int, size: int) -> None:
    """Cut the file to `size` bytes."""
    os.ftruncate(fd, size)


def seal(path: str) -> None:
    """Take the write permission from everybody who has it; only its owner may do that."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o222:
        os.chmod(path, mode & 0o555)


def sync(fd: int) -> None:
    """Bring the file's bytes to the disk."""
    os.fsync(fd)


def sync_path(path: str) -> None:
    """Bring a file, or the entries of a folder, to the disk."""
    if _WINDOWS and (os.path.isdir(path) or not os.access(path, os.W_OK)):
        # Neither can be opened for that there. NTFS journals renames, and where boots have no
        # names a file is synced before it is sealed.
        return
    fd = os.open(path, (os.O_RDWR if _WINDOWS else os.O_RDONLY) | _BINARY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_all(folder: str) -> None:
    """Bring all that was written to the filesystem of `folder` to the disk.

    One call instead of one for each file: with 50,000 files the difference is minutes.
    """
    if _LINUX:
        import ctypes  # late: few calls need it

        fd = os.open(folder, os.O_RDONLY | _BINARY)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.syncfs(fd):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), folder)
        finally:
            os.close(fd)
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            if not os.path.islink(path := f"{parent}/{name}"):
                sync_path(path)
        sync_path(parent)


def rename(source: str, target: str) -> None:
    """Move `source` to `target` in one step, replacing a file that stands there."""
    for pause in _PATIENCE:
        try:
            os.replace(source, target)
        except PermissionError:
            if os.path.isfile(target):
                os.chmod(target, stat.S_IWRITE)
            time.sleep(pause)
        else:
            return
    os.replace(source, target)


def link(source: str, target: str) -> None:
    """Give the file `source` a second name."""
    os.link(source, target)


def symlink(pointing_to: str, target: str) -> None:
    """Make `target` a symbolic link."""
    os.symlink(pointing_to, target)


def unlink(path: str) -> None:
    """Remove a file; that it is gone already is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except PermissionError:
        if not _WINDOWS:
            raise
        os.chmod(path, 0o666)  # Windows refuses to delete what is read-only
        os.unlink(path)


def drop(path: str) -> None:
    """Remove a file after an error, which one of the removal must not hide."""
    try:
        unlink(path)
    except OSError:
        return


def make_folder(path: str) -> None:
    """Make a folder and its parents; that it exists is fine."""
    os.makedirs(path, exist_ok=True)


def new_folder(path: str) -> None:
    """Make a folder that must not exist, in one that does."""
    os.mkdir(path)


def remove_tree(path: str) -> None:
    """Remove a folder of our own with all it holds; that it is gone already is fine."""
    if _WINDOWS:
        for folder, _, names in os.walk(path):
            for name in names:  # rmtree stops at what is read-only there
                unlink(f"{folder}/{name}")
    import shutil  # late: a hit removes nothing

    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return


def touch(path: str) -> None:
    """Set the file's time to now, by the clock of its filesystem; not possible is fine."""
    try:
        os.utime(path)
    except OSError as error:
        if error.errno not in READ_ONLY and error.errno != errno.ENOENT:
            raise


def clone(source: str, target: str, *, program: bool = False) -> None:
    """Make the new file `target` share the bytes of `source` until either is written to (reflink).

    By FICLONE on Linux (btrfs, XFS, bcachefs, OCFS2), by clonefile on macOS (APFS), by reflink-copy
    on Windows (ReFS), where sharing goes cluster by cluster.

    Raises:
        OSError: with an errno in `UNSUPPORTED` where this filesystem cannot.
    """
    if _LINUX:
        import fcntl

        with open(source, "rb") as reader:
            appear(target, lambda fd: fcntl.ioctl(fd, _FICLONE, reader.fileno()), program=program)
    elif _MACOS:
        import ctypes  # late: as above

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.clonefile(os.fsencode(source), os.fsencode(target), ctypes.c_uint32(0)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), source, None, target)
        os.chmod(target, stat.S_IMODE(os.stat(target).st_mode) | stat.S_IWUSR)
    elif _WINDOWS:
        from reflink_copy import reflink  # late: as above

        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        try:
            reflink(source, target)
        except OSError as error:  # without a number; what it is the next way will say again
            raise OSError(errno.ENOTSUP, str(error), target) from error
    else:
        raise OSError(errno.ENOTSUP, "reflinks are not supported here", target)


def copy(source: str, target: str, *, final: bool = False, program: bool = False) -> None:
    """Copy the bytes of `source` into the new file `target`; the rest is as for `create`."""

    def fill(fd: int) -> None:
        offset = 0
        reader.seek(0)
        while chunk := reader.read(_COPY_CHUNK):
            offset += write(fd, [chunk], offset)

    with open(source, "rb", buffering=0) as reader:
        appear(target, fill, final=final, program=program)


def appear(
    target: str, fill: Callable[[int], object], *, final: bool = False, program: bool = False
) -> None:
    """Make the new file `target` with what `fill` writes to its descriptor: all of it, or no file.

    On Linux the file has no name until it is whole, so that a killed process leaves nothing behind
    in a folder that is not ours. Where a file without a name cannot be made (network filesystems,
    FUSE, FAT; whatever open says, the other way says it again if it is more than that) or cannot
    be given one (no /proc), it has a hidden name beside the target first, and is renamed.

    Raises:
        FileExistsError: something stands at `target`.
    """
    if _appear_named_last(target, fill, _mode(final, program)):
        return
    temporary = beside(target)
    fd = create(temporary, final=final, program=program)
    try:
        try:
            fill(fd)
        finally:
            os.close(fd)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        rename(temporary, target)
    except BaseException:
        drop(temporary)
        raise


def _appear_named_last(target: str, fill: Callable[[int], object], mode: int) -> bool:
    """False if this cannot be had here."""
    if not _NAMELESS:
        return False
    try:
        fd = os.open(os.path.dirname(target) or ".", _NAMELESS | os.O_RDWR | _BINARY, mode)
    except OSError:
        return False
    try:
        nameless = f"/proc/self/fd/{fd}"
        if not os.path.exists(nameless):
            return False
        fill(fd)
        try:
            # A folder to start from makes Python call linkat, which follows the link in /proc.
            os.link(nameless, target, src_dir_fd=fd, follow_symlinks=True)
        except FileExistsError:
            raise
        except OSError:
            return False
    finally:
        os.close(fd)
    return True


def beside(path: str) -> str:
    """A new hidden name in the same folder."""
    return os.path.join(os.path.dirname(path), f".dscache-{os.urandom(8).hex()}.tmp")


def publish_bytes(data: bytes, target: str, *, durable: bool = False) -> None:
    """Write a small file, folder included; readers see all of it or none."""
    try:
        _publish(data, target, durable)
    except FileNotFoundError:
        make_folder(os.path.dirname(target))
        _publish(data, target, durable)
    if durable:
        sync_path(os.path.dirname(target))


def _publish(data: bytes, target: str, durable: bool) -> None:
    with replacing(target) as fd:
        write(fd, [data], 0)
        if durable:
            sync(fd)


def read_small(path: str, limit: int) -> bytes:
    """The whole content of a file of at most `limit` bytes.

    Raises:
        StorageError: the file is longer.
    """
    with open(path, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise StorageError(f"{path} is longer than {limit} bytes", path=path)
        return file.read()


def parsed(path: str, parse: Callable[[str], Parsed]) -> Parsed | None:
    """What `parse(path)` makes of the file, or None if there is none.

    The result is remembered as long as the file's identity, size and time stay the same, so that a
    process pays one stat for a file it has read before. `parse` must be a plain function.
    """
    try:
        found = os.stat(path)
        if abs(time.time_ns() - found.st_mtime_ns) < _RACY:
            return parse(path)
        known: Parsed = _parsed(path, parse, found.st_mtime_ns, found.st_size, found.st_ino)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return known


@lru_cache(maxsize=512)
def _parsed(path: str, parse: Callable[[str], Any], *_identity: int) -> Any:
    return parse(path)


def free_space(path: str) -> int:
    """Bytes that this user can still write on the filesystem of `path`."""
    import shutil  # late: a hit writes nothing

    return shutil.disk_usage(path).free


class storage_errors:  # noqa: N801 - reads as a verb; a generator would cost each file 2 µs more
    """Translate what the operating system says of the disk into a `StorageError`, once."""

    def __init__(self, what: str, **facts: str | int) -> None:
        self._what, self._facts = what, facts

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        # Some of our own errors are OSErrors too.
        if isinstance(error, OSError) and not isinstance(error, DscacheError):
            raise storage_error(self._what, error, **self._facts) from error


def storage_error(what: str, error: OSError, **facts: str | int) -> StorageError:
    """The `StorageError` for one failure of the operating system, with what to do."""
    hints = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again: "
        "what has arrived is kept",
        errno.EDQUOT: "the disk quota is used up; what has arrived is kept",
        errno.EACCES: "set DSCACHE_DIR or --cache-dir to a folder that you may write to",
        errno.EPERM: "set DSCACHE_DIR or --cache-dir to a folder that you may write to",
        errno.EROFS: "the file system is read-only: set DSCACHE_DIR or --cache-dir to another",
    }
    reason = os.strerror(error.errno) if error.errno else str(error)
    path = error.filename2 or error.filename  # where two are named, the second is the target
    where = f" ({path})" if path else ""
    return StorageError(
        f"{what}: {reason}{where}", hint=hints.get(error.errno or 0, ""), errno=error.errno, **facts
    )
