"""The one seam to the disk: every durable step of the program is a call of a function here.

Crash tests fail each call in turn, so nothing else in the package creates, writes, renames, links,
syncs or removes, but `copying`, which builds on this module. Files are created with mode 0666 (0444
where they are final) and the umask decides, never with mkstemp's 0600. Knows no layout, no format.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

_WINDOWS = os.name == "nt"
_LINUX = sys.platform.startswith("linux")
_KEEP_SIZE = 1  # linux/falloc.h
_TMPFS = 0x01021994  # linux/magic.h
_MOST_CHUNKS = 1024  # limits.h: IOV_MAX, what one system call takes
# Windows refuses to replace a file that is read-only, or that somebody has open; readers of small
# files are quick. In seconds.
_PATIENCE = (0.01, 0.1, 1.0) if _WINDOWS else ()

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def create(path: str, *, final: bool = False, program: bool = False, private: bool = False) -> int:
    """Create a file that must not exist and return its descriptor, open for reading and writing.

    `final` makes it read-only for everybody from the start; the descriptor can still write.
    `program` makes it executable. `private` is for its owner alone.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY
    return os.open(path, flags, mode_of(final, program) & (0o700 if private else 0o777))


def mode_of(final: bool, program: bool) -> int:
    """The mode of a new file, before the umask."""
    return (0o444 if final else 0o666) | (0o111 if program else 0)


@contextmanager
def created(path: str, *, final: bool = False, private: bool = False) -> Iterator[int]:
    """The descriptor of a new file, closed at the end; the file is removed if an error comes."""
    fd = create(path, final=final, private=private)
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


def append(path: str, data: bytes) -> None:
    """Add to the end of a file, made if need be, in one step that no other process can part."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


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


def new_folder(path: str, *, private: bool = False) -> None:
    """Make a folder that must not exist, in one that does; `private` is for its owner alone."""
    os.mkdir(path, 0o700 if private else 0o777)


def remove_folder(path: str) -> None:
    """Remove a folder that must be empty; that it is gone already is fine."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


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


def touch(path: str, when: float | None = None) -> None:
    """Set the file's time, by default to now by its filesystem's clock; not possible is fine."""
    try:
        os.utime(path, None if when is None else (when, when))
    except OSError as error:
        if error.errno not in READ_ONLY and error.errno != errno.ENOENT:
            raise


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
