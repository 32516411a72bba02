"""Placing: what stands in the user's folder is looked at first; links of archives; progress."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec import structs

from dscache import filesystem, view
from dscache.errors import StorageError, UnsafeError
from dscache.events import Event, Linked
from dscache.view import Item, Placed, Target, placing, room
from dscache.view.links import stands_as
from tests.children import unprivileged
from tests.stores import steps
from tests.views import (
    CONTENTS,
    EVERYTHING,
    EXTRAS,
    Streamed,
    check,
    place,
    stocked,
    tree,
)


@pytest.fixture
def items(home: Path) -> list[Item]:
    return [*EXTRAS, *stocked(home / "cache")]


@pytest.fixture
def built(home: Path, items: list[Item]) -> str:
    folder = f"{home}/cache/datasets/shelf/data/1+00000000"
    view.build(folder, items)
    return folder


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of items at which placing looks."""
    found: list[str] = []

    def noted(path: str, item: Item) -> str:
        found.append(item.path)
        return stands_as(path, item)

    monkeypatch.setattr(room, "stands_as", noted)
    return found


# --- folders and links of archives ----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "hardlink", "symlink", "copy"])
def test_archives_bring_folders_and_links(
    home: Path, items: list[Item], built: str, mode: str
) -> None:
    used = place(home / "mine", items, built, mode=mode).mode
    assert mode in (used, "auto")
    shown = {path: f"-> {built}/{path}" for path in CONTENTS} if used == "symlink" else {}
    assert tree(home / "mine") == {**EVERYTHING, **shown}
    with steps() as taken:
        place(home / "mine", items, built, mode=mode)
    assert [name for name, _ in taken] == ["make_folder"]


def test_links_and_folders_alone_are_no_link_mode(
    home: Path, items: list[Item], built: str
) -> None:
    assert place(home / "mine", EXTRAS, built) == Placed("reflink")


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_through_a_link(
    home: Path, items: list[Item], built: str, force: bool
) -> None:
    wrong = structs.replace(items[-1], path="folder/file")
    with pytest.raises(UnsafeError, match="below its own symbolic links: folder"):
        place(home / "mine", [wrong, *items], built, force=force)
    assert not (home / "mine").exists()


def test_links_and_folders_can_be_in_the_way_as_well(
    home: Path, items: list[Item], built: str
) -> None:
    mine = home / "mine"
    (mine / "dangling").mkdir(parents=True)
    (mine / "empty").write_bytes(b"my own")
    (mine / "folder").symlink_to("elsewhere")
    before = tree(mine)
    with pytest.raises(StorageError, match="nothing was changed") as found:
        place(mine, items, built)
    assert found.value.facts["files"] == ["dangling", "empty", "folder"]
    with pytest.raises(StorageError, match="nothing was changed") as found:
        place(mine, items, built, force=True)
    assert found.value.facts["files"] == ["dangling"]
    assert tree(mine) == before
    (mine / "dangling").rmdir()
    place(mine, items, built, force=True, mode="hardlink")
    assert tree(mine) == EVERYTHING


# --- looking --------------------------------------------------------------------------------------


def test_what_is_in_no_folder_is_not_looked_for(
    home: Path, items: list[Item], built: str, looked_at: list[str]
) -> None:
    place(home / "new", items, built)
    (home / "empty").mkdir()
    place(home / "empty", items, built)
    assert looked_at == []


def test_only_what_has_the_name_of_an_item_is_looked_at(
    home: Path, items: list[Item], built: str, looked_at: list[str]
) -> None:
    (home / "mine/deep").mkdir(parents=True)
    (home / "mine/other.bin").write_bytes(b"my own")
    (home / "mine/twin.bin").write_bytes(CONTENTS["twin.bin"])
    place(home / "mine", items, built)
    assert sorted(looked_at) == ["twin.bin"]


def test_the_users_copies_are_read_once(
    home: Path, items: list[Item], built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(home / "mine", items, built, mode="copy")
    read: list[str] = []
    monkeypatch.setattr("dscache.view.links.fast_sum_of", read.append)
    with pytest.raises(StorageError):
        place(home / "mine", items, built)
    assert sorted(read) == sorted(f"{home}/mine/{path}" for path in CONTENTS)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_too_many_names_to_be_kept_are_looked_at_one_by_one(
    home: Path, items: list[Item], built: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_NAMES_KEPT", kept)
    (home / "mine/deep").mkdir(parents=True)
    for name in ("one.bin", "deep/two.bin"):
        (home / "mine" / name).write_bytes(b"my own")
    with pytest.raises(StorageError) as found:
        place(home / "mine", items, built)
    assert found.value.facts["files"] == ["deep/two.bin", "one.bin"]


def test_a_folder_may_be_written_to_and_not_listed(
    home: Path, items: list[Item], built: str
) -> None:
    (home / "mine").mkdir()
    (home / "mine/one.bin").write_bytes(b"my own")
    (home / "mine").chmod(0o333)

    def blocked() -> None:
        with pytest.raises(StorageError) as found:
            place(home / "mine", items, built)
        assert found.value.facts["files"] == ["one.bin"]
        os.unlink(home / "mine/one.bin")
        place(home / "mine", items, built, mode="hardlink")

    unprivileged(blocked)
    (home / "mine").chmod(0o755)
    assert tree(home / "mine") == EVERYTHING


@pytest.mark.parametrize(
    ("stands", "name"), [("ONE.bin", "one.BIN"), ("u\u0308BER", "\u00fcber"), ("\u0130", "i\u0307")]
)
def test_a_name_is_found_in_whatever_spelling(home: Path, stands: str, name: str) -> None:
    (home / "mine").mkdir()
    (home / "mine" / stands).write_bytes(b"")
    names = room._Names(f"{home}/mine", {""})
    assert names.may_have(name)
    assert not names.may_have("another")
    assert not names.may_have(f"another/{name}")


# --- two items with one name ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "hardlink", "symlink", "copy"])
def test_the_second_of_two_items_with_one_name_is_an_error(
    home: Path, items: list[Item], built: str, mode: str
) -> None:
    """As on a filesystem that ignores case; there it is tried in `test_mounts`."""
    one, two = items[-4:-2]
    double = structs.replace(two, path="one.bin")
    with pytest.raises(StorageError, match="ignores case; they were kept") as found:
        place(home / "mine", [one, double, two], built, mode=mode)
    assert found.value.code == 6
    assert found.value.facts["files"] == ["one.bin"]
    check(home / "mine", ["one.bin", "deep/two.bin"])


def test_force_replaces_two_that_differ_by_case_where_it_counts(
    home: Path, items: list[Item], built: str
) -> None:
    one, two = items[-4:-2]
    (home / "mine").mkdir()
    for name in ("one.bin", "ONE.bin"):
        (home / "mine" / name).write_bytes(b"my own")
    if len(tree(home / "mine")) < 2:
        pytest.skip("this filesystem ignores case")
    place(home / "mine", [one, structs.replace(two, path="ONE.bin")], built, force=True)
    assert set(tree(home / "mine")) == {"one.bin", "ONE.bin"}
    assert (home / "mine/ONE.bin").read_bytes() == CONTENTS["deep/two.bin"]


# --- progress -------------------------------------------------------------------------------------


def placed_many(home: Path, items: list[Item], count: int, total: int) -> list[Event]:
    """What is told while so many files are placed."""
    events: list[Event] = []
    many = Streamed([structs.replace(items[-1], path=f"{n:05}") for n in range(count)])
    target = Target(f"{home}/mine", mode="symlink")
    view.place(target, f"{home}/mine", many, f"{home}/view", emit=events.append, total=total)
    return events


def test_it_is_told_how_many_files_stand(
    home: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_SECONDS_A_WORD", 0)
    told = [Linked(f"{home}/mine", done, 1600) for done in (500, 1000, 1500, 1600)]
    assert placed_many(home, items, 1600, 1600) == told


def test_it_is_told_seldom(home: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "_SECONDS_A_WORD", 1e9)
    assert placed_many(home, items, 1600, 0) == [Linked(f"{home}/mine", 1600, 0)]
    filesystem.remove_tree(f"{home}/mine")
    assert placed_many(home, items, 1000, 1000) == []
