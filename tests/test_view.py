"""Views in the cache: the names people know, by whatever links the filesystem grants."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec import structs

from dscache import filesystem, view
from dscache.errors import InvalidFile, StorageError, UnsafeError
from dscache.view import Item
from tests.stores import files_below, overwrite, steps
from tests.views import (
    CONTENTS,
    EVERYTHING,
    EXTRAS,
    REFUSALS,
    Streamed,
    at_once,
    check,
    kinds,
    refuse,
    stocked,
    tree,
    with_folders,
)


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


def looks(items: Sequence[Item]) -> list[tuple[str, int]]:
    """What a hit looks at."""
    return [(item.path, item.size) for item in items]


def test_a_view_shows_the_blobs_under_their_names(items: list[Item], folder: str) -> None:
    view.build(folder, items)
    check(folder)
    assert kinds(folder, items) == {"hardlink"}
    assert view.is_whole(folder, looks(items))


def test_a_view_appears_with_one_rename(items: list[Item], folder: str) -> None:
    with steps() as taken:
        view.build(folder, items)
    assert [arguments[1] for name, arguments in taken if name == "rename"] == [folder]
    assert taken[-1][0] == "rename"
    assert [name for name, _ in taken].count("link") == len(items)


@pytest.mark.parametrize("number", REFUSALS)
def test_without_hard_links_a_view_is_of_relative_symbolic_links(
    home: Path,
    items: list[Item],
    folder: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse(monkeypatch, number, "link")
    view.build(folder, items)
    check(folder)
    assert kinds(folder, items) == {"symlink"}
    assert not any(os.readlink(path).startswith("/") for path in files_below(folder))
    (home / "cache").rename(home / "moved")
    check(folder.replace("/cache/", "/moved/"))


def test_links_find_their_blobs_where_a_folder_of_the_cache_is_elsewhere(
    home: Path,
    items: list[Item],
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (home / "other/disk").mkdir(parents=True)
    (home / "cache/datasets").symlink_to(home / "other/disk")
    refuse(monkeypatch, errno.EXDEV, "link")
    view.build(folder, items)
    check(folder)
    Path(folder, "one.bin").unlink()
    view.build(folder, items)
    check(folder)


def test_without_any_links_a_view_is_of_read_only_copies(
    items: list[Item], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EPERM, "link", "symlink")
    view.build(folder, items)
    check(folder)
    assert kinds(folder, items) == {"copy"}
    assert {path.stat().st_mode & 0o222 for path in files_below(folder)} == {0}


def test_too_many_links_to_one_file_make_that_one_a_symbolic_link(
    items: list[Item], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = filesystem.link

    def some(source: str, target: str) -> None:
        if target.endswith("twin.bin"):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target)

    monkeypatch.setattr(filesystem, "link", some)
    view.build(folder, items)
    check(folder)
    assert [path.name for path in files_below(folder) if path.is_symlink()] == ["twin.bin"]


@pytest.mark.parametrize("step", ["link", "make_folder", "rename"])
def test_a_view_that_cannot_be_made_leaves_nothing(
    home: Path, items: list[Item], folder: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.ENOSPC, step)
    with pytest.raises(StorageError, match=r"view .* cannot be made: No space left") as found:
        view.build(folder, items)
    assert found.value.code == 6
    assert tree(home / "cache/datasets/shelf/data") == {}
    assert not Path(folder).exists()


def test_two_that_build_the_same_view_agree(
    items: list[Item], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = filesystem.rename

    def late(source: str, target: str) -> None:
        if target == folder:
            monkeypatch.setattr(filesystem, "rename", rename)
            view.build(folder, items[:2])  # another process, a bit faster
        rename(source, target)

    monkeypatch.setattr(filesystem, "rename", late)
    view.build(folder, items)
    check(folder)
    assert [path.name for path in Path(folder).parent.iterdir()] == [Path(folder).name]


def _remove(path: Path, _: bytes) -> None:
    path.unlink()


def _replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(bytes(len(data)) or b"x")


def _shorten(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data[:-1] or b"x")


def _dangle(path: Path, _: bytes) -> None:
    path.unlink()
    path.symlink_to("nothing")


def _loop(path: Path, _: bytes) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("harm", [_remove, _replace, _shorten, _dangle, _loop])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_view_that_stands_there_is_mended(
    items: list[Item], built: str, harm: Callable[[Path, bytes], None], name: str
) -> None:
    harm(Path(built, name), CONTENTS[name])
    view.build(built, items)
    check(built)
    assert kinds(built, items) == {"hardlink"}


def test_mending_what_is_whole_changes_nothing(items: list[Item], built: str) -> None:
    with steps() as taken:
        view.build(built, items)
    assert taken == []


def test_mending_adds_what_was_not_selected_before(items: list[Item], folder: str) -> None:
    view.build(folder, items[:1])
    assert not view.is_whole(folder, looks(items))
    view.build(folder, items[1:])
    check(folder)


def test_a_copy_with_the_right_bytes_is_let_be(items: list[Item], built: str) -> None:
    path = Path(built, "one.bin")
    path.unlink()
    path.write_bytes(CONTENTS["one.bin"])
    with steps() as taken:
        view.build(built, items)
    assert taken == []


def test_what_stands_in_the_way_is_named(items: list[Item], built: str) -> None:
    Path(built, "one.bin").unlink()
    Path(built, "one.bin").mkdir()
    with pytest.raises(StorageError, match=r"view .* cannot be made: .*one.bin"):
        view.build(built, items)
    assert [path.name for path in Path(built).glob(".*")] == []


def test_a_quick_look_sees_missing_files_and_sizes(items: list[Item], built: str) -> None:
    path = Path(built, "one.bin")
    overwrite(path, b"short")
    assert not view.is_whole(built, looks(items))
    path.unlink()
    assert not view.is_whole(built, looks(items))
    assert view.is_whole(built, looks(items[1:3]))
    assert view.is_whole(built, [])
    assert not view.is_whole(f"{built}x", [])
    assert not view.is_whole(f"{built}/one.bin/below", looks(items))


@pytest.mark.parametrize("harm", [_remove, _replace, _shorten, _dangle, _loop])
def test_a_thorough_look_sees_every_byte(
    items: list[Item], built: str, harm: Callable[[Path, bytes], None]
) -> None:
    assert view.is_sound(built, items)
    path = Path(built, "twin.bin")
    path.unlink()
    path.write_bytes(CONTENTS["twin.bin"])
    assert view.is_sound(built, items)
    harm(path, CONTENTS["twin.bin"])
    assert not view.is_sound(built, items)


def test_syncing_reaches_every_folder_and_every_copy(
    items: list[Item], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = filesystem.link

    def some(source: str, target: str) -> None:
        if target.endswith(("one.bin", "twin.bin")):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target)

    monkeypatch.setattr(filesystem, "link", some)
    refuse(monkeypatch, errno.EPERM, "symlink")
    view.build(folder, items)
    with steps() as taken:
        view.sync(folder, items)
    assert {name for name, _ in taken} == {"sync_path"}
    assert {arguments[0] for _, arguments in taken} == {
        f"{folder}/one.bin",
        f"{folder}/twin.bin",
        f"{folder}/deep/er",
        f"{folder}/deep",
        folder,
        os.path.dirname(folder),
    }


# --- folders and links of archives ----------------------------------------------------------------


def test_archives_bring_folders_and_links(items: list[Item], folder: str) -> None:
    everything = Streamed([*EXTRAS, *items])
    view.build(folder, everything)
    assert tree(folder) == EVERYTHING
    assert view.is_sound(folder, everything)
    with steps() as taken:
        view.build(folder, everything)
    assert taken == []


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("refused", [("link",), ("link", "symlink")])
def test_links_of_archives_are_no_way_to_files(
    items: list[Item],
    folder: str,
    refused: tuple[str, ...],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where files are symbolic links, those of the archive still hold what it said."""
    refuse(monkeypatch, number, *refused)
    if "symlink" in refused:
        with pytest.raises(StorageError, match="cannot be made"):
            view.build(folder, [*items, *EXTRAS])
    else:
        view.build(folder, [*items, *EXTRAS])
        assert os.readlink(f"{folder}/folder") == "deep"
        assert view.is_sound(folder, [*items, *EXTRAS])


def _lead_elsewhere(folder: Path) -> None:
    (folder / "deep/er/link").unlink()
    (folder / "deep/er/link").symlink_to("../other.bin")


def _put_the_file(folder: Path) -> None:
    (folder / "deep/er/link").unlink()
    (folder / "deep/er/link").write_bytes(CONTENTS["deep/two.bin"])


def _take_the_folder(folder: Path) -> None:
    (folder / "empty/er").rmdir()


@pytest.mark.parametrize("harm", [_lead_elsewhere, _put_the_file, _take_the_folder])
def test_links_and_folders_are_mended(
    items: list[Item], folder: str, harm: Callable[[Path], None]
) -> None:
    view.build(folder, [*items, *EXTRAS])
    harm(Path(folder))
    assert not view.is_sound(folder, [*items, *EXTRAS])
    view.build(folder, [*items, *EXTRAS])
    assert tree(folder) == EVERYTHING


@pytest.mark.parametrize("below", ["folder/file", "folder/deep/er/file", "folder"])
@pytest.mark.parametrize("order", [1, -1])
def test_nothing_is_written_through_a_link(
    home: Path, items: list[Item], folder: str, below: str, order: int
) -> None:
    (home / "precious").mkdir()
    link = Item("folder", kind="link", target=str(home / "precious"))
    kind = "folder" if below == "folder" else "file"
    wrong = [link, structs.replace(items[0], path=below, kind=kind)][::order]
    with pytest.raises(UnsafeError, match="below its own symbolic links: folder") as found:
        view.build(folder, [*items, *wrong])
    assert found.value.code == 7
    assert tree(home / "precious") == {}
    assert not Path(folder).exists()


def test_syncing_leaves_links_and_reaches_empty_folders(items: list[Item], folder: str) -> None:
    view.build(folder, [*items, *EXTRAS])
    with steps() as taken:
        view.sync(folder, Streamed([*items, *EXTRAS]))
    assert {arguments[0] for _, arguments in taken} == {
        f"{folder}/deep",
        f"{folder}/deep/er",
        f"{folder}/empty",
        f"{folder}/empty/er",
        folder,
        os.path.dirname(folder),
    }


def test_one_place_for_two_files_is_an_error(items: list[Item], folder: str) -> None:
    """Of the dataset; where it is one of a filesystem that ignores case, see `test_mounts`."""
    double = structs.replace(items[1], path="one.bin")
    with pytest.raises(InvalidFile, match=r"two files .* want to stand at one.bin") as found:
        view.build(folder, [*items, double])
    assert found.value.facts["files"] == ["one.bin"]
    assert not Path(folder).exists()
    view.build(folder, [*items, items[0]])
    check(folder)


@pytest.mark.parametrize("refused", [(), ("link", "symlink")])
def test_programs_stay_programs(
    items: list[Item], folder: str, refused: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(items[1].source, 0o555)
    refuse(monkeypatch, errno.EPERM, *refused)
    view.build(folder, items)
    modes = {path.name: path.stat().st_mode & 0o777 for path in files_below(folder)}
    assert modes["two.bin"] == 0o555
    assert modes["one.bin"] == 0o444


def test_many_build_the_same_view_at_once(items: list[Item], folder: str) -> None:
    many = [structs.replace(items[0], path=f"{n % 20:02}/{n:04}") for n in range(1000)]
    at_once(3, lambda: view.build(folder, many))
    assert tree(folder) == with_folders({item.path: CONTENTS["one.bin"] for item in many})
    assert [path.name for path in Path(folder).parent.iterdir()] == [Path(folder).name]
