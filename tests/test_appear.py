"""A new file in a folder of the user: whole or not at all, and nothing beside it."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from dscache import copying
from tests.children import Died, forked

LINUX = sys.platform.startswith("linux")


def _no_nameless_files(patch: pytest.MonkeyPatch, number: int) -> None:
    open_ = os.open

    def refused(path: str, flags: int, *arguments: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number), path)
        return open_(path, flags, *arguments)

    patch.setattr(os, "open", refused)


def _no_proc(patch: pytest.MonkeyPatch, _: int) -> None:
    exists = os.path.exists
    patch.setattr(os.path, "exists", lambda path: not path.startswith("/proc") and exists(path))


def _no_names_for_them(patch: pytest.MonkeyPatch, number: int) -> None:
    link = os.link

    def refused(source: str, *arguments: Any, **keys: Any) -> None:
        if source.startswith("/proc"):
            raise OSError(number, os.strerror(number), source)
        link(source, *arguments, **keys)

    patch.setattr(os, "link", refused)


def _other_system(patch: pytest.MonkeyPatch, _: int) -> None:
    patch.setattr(copying, "_NAMELESS", 0)


def _this_system(_: pytest.MonkeyPatch, __: int) -> None:
    pass


WAYS = [_this_system, _other_system]
if LINUX:
    WAYS += [_no_nameless_files, _no_proc, _no_names_for_them]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine can do, and what others can."""
    request.param(monkeypatch, errno.EOPNOTSUPP)


def write(fd: int) -> None:
    os.write(fd, b"new")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("program", [False, True])
def test_a_file_appears_whole(home: Path, final: bool, program: bool) -> None:
    def fill(fd: int) -> None:
        assert not (home / "file").exists()
        write(fd)

    copying.appear(f"{home}/file", fill, final=final, program=program)
    copying.appear("relative", write)
    assert (home / "file").read_bytes() == (home / "relative").read_bytes() == b"new"
    umask = os.umask(0)
    os.umask(umask)
    mode = (0o444 if final else 0o666) | (0o111 if program else 0)
    assert (home / "file").stat().st_mode & 0o777 == mode & ~umask
    assert sorted(path.name for path in home.iterdir()) == ["file", "relative"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("there", ["file", "folder", "dangling"])
def test_nothing_is_replaced(home: Path, there: str) -> None:
    path = home / "mine"
    if there == "file":
        path.write_bytes(b"my own")
    elif there == "folder":
        path.mkdir()
    else:
        path.symlink_to("nothing")
    with pytest.raises(FileExistsError):
        copying.appear(str(path), write)
    assert [path.name for path in home.iterdir()] == ["mine"]
    assert there != "file" or path.read_bytes() == b"my own"
    assert there != "dangling" or path.is_symlink()


@pytest.mark.usefixtures("way")
def test_an_error_leaves_nothing(home: Path) -> None:
    def fail(fd: int) -> None:
        write(fd)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        copying.appear(f"{home}/file", fail)
    with pytest.raises(FileNotFoundError):
        copying.appear(f"{home}/no/folder/file", write)
    assert list(home.iterdir()) == []


@pytest.mark.skipif(not LINUX, reason="only Linux has files without a name")
def test_a_killed_process_leaves_nothing(home: Path) -> None:
    def die() -> None:
        def fill(fd: int) -> None:
            write(fd)
            os.kill(os.getpid(), signal.SIGKILL)

        copying.appear(f"{home}/file", fill)

    with pytest.raises(Died):
        forked(die)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("number", [0, errno.ENOTSUP, errno.EXDEV, errno.EEXIST])
def test_on_apple_systems_a_clone_is_made_by_their_own_call(
    home: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It copies the attributes as well, and a sealed source must not give a sealed file."""

    class Library:
        def clonefile(self, source: bytes, target: bytes, flags: ctypes.c_uint32) -> int:
            assert flags.value == 0
            if number:
                ctypes.set_errno(number)
                return -1
            shutil.copy2(source, target)
            return 0

    monkeypatch.setattr(copying, "_LINUX", False)
    monkeypatch.setattr(copying, "_MACOS", True)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    (home / "source").write_bytes(b"x")
    (home / "source").chmod(0o444)
    if number:
        with pytest.raises(OSError, match=os.strerror(number)) as found:
            copying.clone(f"{home}/source", f"{home}/target")
        assert found.value.errno == number
    else:
        copying.clone(f"{home}/source", f"{home}/target")
        assert (home / "target").read_bytes() == b"x"
        assert (home / "target").stat().st_mode & 0o777 == 0o644


def test_elsewhere_there_are_no_clones(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_LINUX", False)
    monkeypatch.setattr(copying, "_MACOS", False)
    (home / "source").write_bytes(b"x")
    with pytest.raises(OSError, match="not supported here") as found:
        copying.clone(f"{home}/source", f"{home}/target")
    assert found.value.errno in copying.UNSUPPORTED
