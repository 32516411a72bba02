"""Placing: a view in a folder of the user, by whatever links there are, nothing of theirs lost."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from msgspec import structs

from dscache import copying, filesystem, view
from dscache.errors import StorageError, UsageError
from dscache.view import Item, Placed
from tests.children import unprivileged
from tests.stores import files_below, steps
from tests.views import (
    CONTENTS,
    REFUSALS,
    check,
    kinds,
    place,
    refuse,
    stocked,
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


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_files_are_placed_by_the_mode_asked_for(
    home: Path, items: list[Item], built: str, mode: str
) -> None:
    placed = place(home / "mine", items, built, mode=mode)
    check(home / "mine")
    assert kinds(home / "mine", items) == {mode}
    copied = sum(map(len, CONTENTS.values())) if mode == "copy" else 0
    assert placed == Placed(mode, copied)


def test_symbolic_links_point_to_the_view_with_its_real_names(
    home: Path, items: list[Item], built: str
) -> None:
    place(home / "mine", items, built, mode="symlink")
    for name in CONTENTS:
        assert os.readlink(home / "mine" / name) == f"{built}/{name}"


def test_copies_are_the_users_own(home: Path, items: list[Item], built: str) -> None:
    place(home / "mine", items, built, mode="copy")
    path = home / "mine/one.bin"
    assert path.stat().st_mode & 0o200
    path.write_bytes(b"changed")
    assert Path(built, "one.bin").read_bytes() == CONTENTS["one.bin"]


@pytest.mark.parametrize(
    ("refused", "mode"),
    [
        ((), "reflink"),
        (("clone",), "hardlink"),
        (("clone", "link"), "symlink"),
        (("clone", "link", "symlink"), "copy"),
    ],
)
@pytest.mark.parametrize("number", REFUSALS)
def test_auto_takes_the_best_that_works(
    home: Path,
    items: list[Item],
    built: str,
    refused: tuple[str, ...],
    mode: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copying, "clone", copying.copy)
    refuse(monkeypatch, number, *refused)
    names = {"clone": "reflink", "link": "hardlink"}
    why = "; ".join(f"{names.get(each, each)}: {os.strerror(number)}" for each in refused)
    copied = sum(map(len, CONTENTS.values())) if mode == "copy" else 0
    assert place(home / "mine", items, built) == Placed(mode, copied, why)
    check(home / "mine")


def test_a_mode_that_cannot_be_had_is_an_error(
    home: Path, items: list[Item], built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EXDEV, "link")
    with pytest.raises(StorageError, match=r"'hardlink' cannot be had for .*one.bin") as found:
        place(home / "mine", items, built, mode="hardlink")
    assert found.value.code == 6
    assert "--link" in found.value.hint
    assert files_below(home / "mine") == []


def test_a_mode_that_does_not_exist_is_wrong_usage(
    home: Path, items: list[Item], built: str
) -> None:
    with pytest.raises(UsageError, match="'teleport'"):
        place(home / "mine", items, built, mode="teleport")
    assert not (home / "mine").exists()


def test_a_view_is_not_placed_onto_itself(home: Path, items: list[Item], built: str) -> None:
    (home / "mine").symlink_to(built)
    for folder in (built, home / "mine"):
        with pytest.raises(UsageError, match="where the cache keeps these files"):
            place(folder, items, built, mode="symlink", force=True)
    check(built)


def test_hard_links_lead_to_the_bytes_where_the_view_is_of_symbolic_links(
    home: Path, items: list[Item], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EPERM, "link")
    view.build(folder, items)
    monkeypatch.undo()
    place(home / "mine", items, folder, mode="hardlink")
    check(home / "mine")
    assert kinds(home / "mine", items) == {"hardlink"}


def test_files_in_the_way_are_listed_and_nothing_is_changed(
    home: Path, items: list[Item], built: str
) -> None:
    mine = home / "mine"
    (mine / "deep/two.bin").mkdir(parents=True)
    (mine / "one.bin").write_bytes(b"my own")
    (mine / "twin.bin").symlink_to("nothing")
    before = sorted(mine.rglob("*"))
    with pytest.raises(StorageError, match="nothing was changed") as found:
        place(mine, items, built)
    assert found.value.code == 6
    assert found.value.facts["files"] == ["deep/two.bin", "one.bin", "twin.bin"]
    assert "\n  one.bin" in str(found.value)
    assert "--force" in found.value.hint
    assert sorted(mine.rglob("*")) == before
    assert (mine / "one.bin").read_bytes() == b"my own"


def test_a_file_where_a_folder_is_needed_is_in_the_way(
    home: Path, items: list[Item], built: str
) -> None:
    mine = home / "mine"
    mine.mkdir()
    (mine / "deep").write_bytes(b"my own")
    with pytest.raises(StorageError) as found:
        place(mine, items, built)
    assert found.value.facts["files"] == ["deep"]
    place(mine, items, built, force=True)
    check(mine)


def test_of_many_files_in_the_way_some_are_shown(home: Path, items: list[Item]) -> None:
    many = [structs.replace(items[0], path=f"{n:03}") for n in range(30)]
    folder = f"{home}/cache/datasets/shelf/many"
    view.build(folder, many)
    (home / "mine").mkdir()
    for item in many:
        (home / "mine" / item.path).write_bytes(b"other")
    with pytest.raises(StorageError, match=r"019\n  and 10 more$") as found:
        place(home / "mine", many, folder)
    assert len(found.value.facts["files"]) == 30


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_force_replaces_files_and_only_them(
    home: Path, items: list[Item], built: str, mode: str
) -> None:
    mine = home / "mine"
    mine.mkdir()
    (home / "precious").write_bytes(b"precious")
    (mine / "one.bin").symlink_to(home / "precious")
    (mine / "twin.bin").symlink_to("nothing")
    (mine / "other.bin").write_bytes(b"my own")
    with steps() as taken:
        place(mine, items, built, mode=mode, force=True)
    assert not {f"{mine}/{name}" for name in CONTENTS} & {
        arguments[0] for name, arguments in taken if name == "unlink"
    }  # a file is replaced by the rename itself: there is no moment without one
    assert (mine / "other.bin").read_bytes() == b"my own"
    (mine / "other.bin").unlink()
    check(mine)
    assert (home / "precious").read_bytes() == b"precious"


def test_force_never_replaces_a_folder(home: Path, items: list[Item], built: str) -> None:
    mine = home / "mine"
    (mine / "one.bin").mkdir(parents=True)
    (mine / "deep").write_bytes(b"my own")
    with pytest.raises(StorageError, match="nothing was changed") as found:
        place(mine, items, built, force=True)
    assert found.value.facts["files"] == ["one.bin"]
    assert (mine / "deep").read_bytes() == b"my own"
    assert "--force" not in found.value.hint


@pytest.mark.parametrize("mode", ["auto", "hardlink", "symlink", "copy"])
def test_the_users_own_files_of_the_same_content_stay(
    home: Path, items: list[Item], built: str, mode: str
) -> None:
    mine = home / "mine"
    mine.mkdir()
    (home / "elsewhere.bin").write_bytes(CONTENTS["twin.bin"])
    (mine / "one.bin").write_bytes(CONTENTS["one.bin"])
    (mine / "twin.bin").symlink_to(home / "elsewhere.bin")
    inode = (mine / "one.bin").stat().st_ino
    place(mine, items, built, mode=mode)
    check(mine)
    assert (mine / "one.bin").stat().st_ino == inode
    assert os.readlink(mine / "twin.bin") == str(home / "elsewhere.bin")


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_placing_again_does_nothing_and_says_what_stands_there(
    home: Path, items: list[Item], built: str, mode: str
) -> None:
    place(home / "mine", items, built, mode=mode)
    for again in (mode, "auto"):
        with steps() as taken:
            assert place(home / "mine", items, built, mode=again) == Placed(mode, 0)
        assert [name for name, _ in taken] == ["make_folder"]


@pytest.mark.parametrize("before", ["hardlink", "symlink"])
@pytest.mark.parametrize("after", ["hardlink", "symlink", "copy"])
def test_links_to_the_cache_change_to_the_mode_asked_for(
    home: Path, items: list[Item], built: str, before: str, after: str
) -> None:
    place(home / "mine", items, built, mode=before)
    assert place(home / "mine", items, built, mode=after).mode == after
    check(home / "mine")
    assert kinds(home / "mine", items) == {after}
    check(built)
    assert kinds(built, items) == {"hardlink"}


def test_a_folder_of_the_user_may_be_a_symbolic_link(
    home: Path, items: list[Item], built: str
) -> None:
    (home / "disk/deep").mkdir(parents=True)
    (home / "mine").symlink_to(home / "disk")
    place(home / "mine", items, built)
    assert (home / "mine").is_symlink()
    check(home / "disk")


def test_a_folder_in_the_folder_may_be_a_symbolic_link(
    home: Path, items: list[Item], built: str
) -> None:
    (home / "disk").mkdir()
    (home / "mine").mkdir()
    (home / "mine/deep").symlink_to(home / "disk")
    place(home / "mine", items, built)
    assert (home / "mine/deep").is_symlink()
    assert (home / "disk/two.bin").read_bytes() == CONTENTS["deep/two.bin"]


@pytest.mark.parametrize("obstacle", ["file", "dangling"])
def test_a_folder_that_cannot_be_made_is_an_error_of_storage(
    home: Path, items: list[Item], built: str, obstacle: str
) -> None:
    if obstacle == "file":
        (home / "mine").write_bytes(b"my own")
    else:
        (home / "mine").symlink_to("nothing")
    with pytest.raises(StorageError, match=r"cannot be put into .*mine") as found:
        place(home / "mine", items, built, force=True)
    assert found.value.code == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_read_only_files_of_others_are_linked_symbolically(
    home: Path, items: list[Item], folder: str
) -> None:
    """Linux's protected_hardlinks, and what a group cache meets every day."""
    for item in items:
        os.chown(item.source, 12345, 12345)

    def build() -> None:
        try:
            filesystem.link(items[0].source, f"{home}/probe")
        except PermissionError:
            expected = "symlink"
        else:
            expected = "hardlink"
        view.build(folder, items)
        assert kinds(folder, items) == {expected}
        placed = place(home / "mine", items, folder)
        check(home / "mine")
        assert placed.mode in (expected, "reflink")

    unprivileged(build)


@pytest.mark.parametrize("refused", [(), ("clone", "link", "symlink")])
def test_programs_stay_programs(
    home: Path,
    items: list[Item],
    built: str,
    refused: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    os.chmod(items[1].source, 0o555)
    refuse(monkeypatch, errno.EPERM, *refused)
    place(home / "mine", items, built)
    assert os.access(home / "mine/deep/two.bin", os.X_OK)
    assert not (home / "mine/one.bin").stat().st_mode & 0o111


def test_there_is_no_why_where_the_mode_was_asked_for_or_all_stood_there(
    home: Path, items: list[Item], built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EXDEV, "clone", "link")
    assert place(home / "one", items, built, mode="symlink") == Placed("symlink")
    assert place(home / "two", items, built).why != ""
    assert place(home / "two", items, built) == Placed("symlink")
