"""Copies: whole files that appear under their names, sharing bytes with others where they can.

On Linux such a file has no name until it is whole, so that a killed process leaves nothing behind
in a folder that is not ours.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable

from dscache import filesystem

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

_WINDOWS = os.name == "nt"
_LINUX = sys.platform.startswith("linux")
_MACOS = sys.platform == "darwin"
_FICLONE = 0x40049409  # linux/fs.h: ioctl that shares the extents of one file with another
_NAMELESS = getattr(os, "O_TMPFILE", 0)  # of open: the file has no name; Linux only
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_COPY_CHUNK = 8 << 20


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
        import ctypes  # late: few calls come here

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.clonefile(os.fsencode(source), os.fsencode(target), ctypes.c_uint32(0)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), source, None, target)
        os.chmod(target, stat.S_IMODE(os.stat(target).st_mode) | stat.S_IWUSR)
    elif _WINDOWS:
        from reflink_copy import reflink  # late, and on this platform alone

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
            offset += filesystem.write(fd, [chunk], offset)

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
    if _appear_named_last(target, fill, filesystem.mode_of(final, program)):
        return
    temporary = filesystem.beside(target)
    fd = filesystem.create(temporary, final=final, program=program)
    try:
        try:
            fill(fd)
        finally:
            os.close(fd)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        filesystem.rename(temporary, target)
    except BaseException:
        filesystem.drop(temporary)
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
