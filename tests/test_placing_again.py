"""Placing that is killed, fails or is not alone: what stands is right, the next call goes on."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from dscache import copying, filesystem, view
from dscache.errors import StorageError
from dscache.view import Item
from tests.children import Died, forked, unprivileged
from tests.views import (
    CONTENTS,
    EVERYTHING,
    EXTRAS,
    at_once,
    check,
    kinds,
    place,
    refuse,
    stocked,
    tree,
    with_folders,
)

LINUX = sys.platform.startswith("linux")


@pytest.fixture
def items(home: Path) -> list[Item]:
    return stocked(home / "cache")


@pytest.fixture
def folder(home: Path) -> str:
    return f"{home}/cache/datasets/shelf/data/1+00000000"


@pytest.fixture
def built(items: list[Item], folder: str) -> str:
    view.build(folder, items)
    return folder


@pytest.mark.parametrize("step", ["link", "symlink", "copy", "write"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_was_killed_is_completed(
    home: Path, items: list[Item], built: str, step: str, number: int
) -> None:
    mode = {"link": "hardlink", "write": "copy"}.get(step, step)
    everything = [*items, *EXTRAS]
    view.build(built, everything)

    def die() -> None:
        home_of_step = copying if step == "copy" else filesystem
        real = getattr(home_of_step, step)
        left = iter(range(number))

        def mortal(*arguments: Any, **keys: Any) -> Any:
            if next(left) == number - 1:
                if step == "write":
                    real(arguments[0], [b"torn"], 0)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keys)

        setattr(home_of_step, step, mortal)
        place(home / "mine", everything, built, mode=mode)

    with pytest.raises(Died):
        forked(die)
    for path, shown in tree(home / "mine").items():
        if Path(path).name.startswith(".dscache-"):
            assert not LINUX  # elsewhere what a killed process leaves can be told by its name
            (home / "mine" / path).unlink()
        elif not str(shown).startswith("-> "):
            assert shown == EVERYTHING[path]
    place(home / "mine", everything, built, mode=mode)
    links = {path: f"-> {built}/{path}" for path in CONTENTS} if mode == "symlink" else {}
    assert tree(home / "mine") == {**EVERYTHING, **links}


@pytest.mark.parametrize("step", ["link", "symlink", "copy"])
def test_an_error_on_the_way_leaves_whole_files_only(
    home: Path, items: list[Item], built: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home_of_step = copying if step == "copy" else filesystem
    real = getattr(home_of_step, step)

    def full(source: str, target: str, **keys: Any) -> None:
        if target.endswith("three.bin"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, None, target)
        real(source, target, **keys)

    monkeypatch.setattr(home_of_step, step, full)
    mode = {"link": "hardlink"}.get(step, step)
    with pytest.raises(StorageError, match=r"No space left on device .*three.bin"):
        place(home / "mine", items, built, mode=mode)
    check(home / "mine", ["one.bin", "deep/two.bin"])
    monkeypatch.undo()
    place(home / "mine", items, built, mode=mode)
    check(home / "mine")


def test_replacing_that_fails_leaves_what_was_there(
    home: Path, items: list[Item], built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mine").mkdir()
    (home / "mine/one.bin").write_bytes(b"my own")
    refuse(monkeypatch, errno.ENOSPC, "rename")
    with pytest.raises(StorageError, match="No space left on device"):
        place(home / "mine", items, built, mode="hardlink", force=True)
    assert tree(home / "mine") == with_folders({"one.bin": b"my own"}) | {"deep": "", "deep/er": ""}


def test_a_folder_that_may_not_be_written_is_an_error_of_storage(
    home: Path, items: list[Item], built: str
) -> None:
    (home / "mine").mkdir()
    (home / "mine").chmod(0o555)

    def fail() -> None:
        with pytest.raises(StorageError, match=r"cannot be put into .*Permission denied"):
            place(home / "mine", items, built)

    unprivileged(fail)


def test_two_that_place_the_same_at_once_agree(
    home: Path, items: list[Item], built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = filesystem.link

    def late(source: str, target: str) -> None:
        monkeypatch.setattr(filesystem, "link", link)
        place(home / "mine", items, built, mode="hardlink")  # another process, a bit faster
        link(source, target)

    monkeypatch.setattr(filesystem, "link", late)
    place(home / "mine", items, built, mode="hardlink")
    check(home / "mine")


@pytest.mark.parametrize("mode", ["auto", "hardlink", "symlink", "copy"])
def test_many_that_place_the_same_at_once_all_succeed(
    home: Path, items: list[Item], built: str, mode: str
) -> None:
    many = [structs.replace(items[0], path=f"{n % 20:02}/{n:03}") for n in range(400)]
    view.build(f"{built}.many", [*many, *EXTRAS])
    at_once(3, lambda: place(home / "mine", [*many, *EXTRAS], f"{built}.many", mode=mode))
    check_all = {path: (home / "mine" / path).read_bytes() for path in (i.path for i in many)}
    assert set(check_all.values()) == {CONTENTS["one.bin"]}
    extras = {item.path for item in EXTRAS} | {"deep", "deep/er", "empty"}
    assert set(tree(home / "mine")) == set(with_folders(check_all)) | extras


def test_many_that_replace_the_same_at_once_all_succeed(
    home: Path, items: list[Item], built: str
) -> None:
    (home / "mine").mkdir()
    (home / "mine/deep").write_bytes(b"my own")
    for name in ("one.bin", "twin.bin"):
        (home / "mine" / name).write_bytes(b"my own")
    at_once(3, lambda: place(home / "mine", items, built, force=True))
    assert tree(home / "mine") == with_folders(CONTENTS)


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_what_another_process_places_meanwhile_is_kept_or_changed_to_the_mode_asked_for(
    home: Path, items: list[Item], built: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder = filesystem.make_folder

    def late(path: str) -> None:
        monkeypatch.setattr(filesystem, "make_folder", make_folder)
        place(home / "mine", items, built, mode="symlink")
        make_folder(path)

    monkeypatch.setattr(filesystem, "make_folder", late)
    assert place(home / "mine", items, built, mode=mode).mode == mode
    check(home / "mine")
    assert kinds(home / "mine", items) == {mode}
