"""Filesystems for tests: real ones, each in a file that is mounted for a while.

    with mounted("btrfs", SMALLEST["btrfs"], tmp_path / "disk") as disk:
        (disk / "file").write_bytes(b"x")

Only root on Linux can do that, and not in every container; elsewhere the test is skipped, with the
reason. Whatever happens, nothing stays mounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20
#: Bytes of the smallest filesystem that its program makes, by kind. The file for it is sparse.
SMALLEST = {
    "tmpfs": MIB,
    "ext4": 8 * MIB,
    "vfat": 8 * MIB,
    "exfat": 8 * MIB,
    "btrfs": 128 * MIB,
    "xfs": 304 * MIB,
}
#: Of them, what knows neither hard nor symbolic links, nor upper from lower case.
PLAIN = ("vfat", "exfat")
#: Of them, what knows reflinks.
REFLINKING = ("btrfs", "xfs")

_MAKE = {
    "ext4": ("mkfs.ext4", "-q"),
    "vfat": ("mkfs.vfat",),
    "exfat": ("mkfs.exfat",),
    "btrfs": ("mkfs.btrfs", "-q"),
    "xfs": ("mkfs.xfs", "-q"),
}
#: Programs that mount in user space what the kernel does not know.
_FUSE = {"exfat": "mount.exfat-fuse"}


@contextmanager
def mounted(kind: str, size: int, folder: Path, *, options: str = "") -> Iterator[Path]:
    """`folder`, which is made, with a new filesystem of that kind and size mounted on it.

    `options` are those of mount, separated by commas. The test is skipped where this cannot be had.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip(f"{kind}: only root can mount, on Linux")
    folder.mkdir(parents=True)
    with ExitStack() as undo:
        if kind == "tmpfs":
            _must(kind, "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
        else:
            image = folder.with_name(f"{folder.name}.img")
            undo.callback(image.unlink, missing_ok=True)
            _mount(kind, _device(kind, size, image, undo), folder, options)
        undo.callback(_unmount, folder)
        yield folder


@contextmanager
def mounted_again(kind: str, image: Path, folder: Path) -> Iterator[Path]:
    """`folder`, which is made, with the filesystem that stands in a file; another copy of it may be
    mounted at the same time.
    """
    folder.mkdir(parents=True)
    with ExitStack() as undo:
        options = "nouuid" if kind == "xfs" else ""
        _mount(kind, _attached(kind, image, undo), folder, options)
        undo.callback(_unmount, folder)
        yield folder


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Nothing can be written to what was `mounted`, as on a medium; not even by root."""
    _must("read-only", "mount", "-o", "remount,ro", str(disk))
    try:
        yield
    finally:
        _must("read-only", "mount", "-o", "remount,rw", str(disk))


def _device(kind: str, size: int, image: Path, undo: ExitStack) -> str:
    """A block device with a new filesystem, kept in the file `image`."""
    with open(image, "wb") as file:
        file.truncate(size)
    _must(kind, *_MAKE[kind], str(image))
    return _attached(kind, image, undo)


def _attached(kind: str, image: Path, undo: ExitStack) -> str:
    """A block device with what is in a file."""
    device = _must(kind, "losetup", "--find", "--show", str(image)).strip()
    undo.callback(_run, "losetup", "--detach", device)
    return device


def _mount(kind: str, device: str, folder: Path, options: str) -> None:
    chosen = ("-o", options) if options else ()
    tried = _run("mount", "-t", kind, *chosen, device, str(folder))
    if tried.returncode == 0:
        return
    if kind not in _FUSE:
        pytest.skip(f"{kind}: {_first_line(tried.stderr)}")
    _must(kind, _FUSE[kind], device, str(folder))


def _unmount(folder: Path) -> None:
    if _run("umount", str(folder)).returncode:  # something still stands in it, or has files open
        _run("umount", "--lazy", str(folder))


def _must(kind: str, *command: str) -> str:
    """The program's output; the test is skipped if there is no such program or it fails."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if shutil.which(command[0], path=path) is None:
        pytest.skip(f"{kind}: there is no program {command[0]}")
    done = _run(*command)
    if done.returncode:
        pytest.skip(f"{kind}: {command[0]}: {_first_line(done.stderr)}")
    return done.stdout


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    program = shutil.which(command[0], path=path) or command[0]
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
