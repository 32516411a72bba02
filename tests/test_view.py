"""Views: the names people know, by whatever links the filesystem grants, and nothing of the user's
lost.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dscache import filesystem, view
from dscache.errors import StorageError, UsageError
from dscache.store import SMALL, File, Store
from dscache.view import Placed, Target
from tests.children import Died, forked, unprivileged
from tests.making import content
from tests.stores import files_below, overwrite, publish, steps

CONTENTS = {
    "one.bin": content(3000, 1),
    "deep/two.bin": content(SMALL + 1, 2),
    "deep/er/three.bin": b"",
    "twin.bin": content(3000, 1),
}
REFUSALS = [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS]


@pytest.fixture
def store(home: Path) -> Store:
    made = Store(f"{home}/cache")
    made.prepare()
    return made


@pytest.fixture
def files(store: Store) -> list[File]:
    blobs = {path: publish(store, data) for path, data in CONTENTS.items()}
    return [File(path, blob.sha256, blob.size, blob.xxh3_128) for path, blob in blobs.items()]


@pytest.fixture
def folder(store: Store) -> str:
    return store.layout.view("shelf", "data", "1", "0" * 64)


@pytest.fixture
def built(store: Store, files: list[File], folder: str) -> str:
    view.build(folder, files, store.layout.blob)
    return folder


def refuse(patch: pytest.MonkeyPatch, number: int, *names: str) -> None:
    """Let steps fail, as on a filesystem that does not know them."""

    def refused(*arguments: Any, **_: Any) -> None:
        raise OSError(number, os.strerror(number), arguments[-1])

    for name in names:
        patch.setattr(filesystem, name, refused)


def check(folder: str | Path, names: Sequence[str] = tuple(CONTENTS)) -> None:
    """Exactly these files stand there, with their bytes."""
    found = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    assert sorted(found) == sorted(names)
    for name, path in found.items():
        assert path.read_bytes() == CONTENTS[name]


def kinds(folder: str | Path, store: Store, files: Sequence[File]) -> set[str]:
    """By which links the files stand there."""
    found = set()
    for file in files:
        path, blob = Path(folder, file.path), store.layout.blob(file.sha256)
        if path.is_symlink():
            found.add("symlink")
        else:
            found.add("hardlink" if os.path.samefile(path, blob) else "copy")
    return found


# --- in the cache ---------------------------------------------------------------------------------


def test_a_view_shows_the_blobs_under_their_names(
    store: Store, files: list[File], folder: str
) -> None:
    view.build(folder, files, store.layout.blob)
    check(folder)
    assert kinds(folder, store, files) == {"hardlink"}
    assert view.is_whole(folder, files)


def test_a_view_appears_with_one_rename(store: Store, files: list[File], folder: str) -> None:
    with steps() as taken:
        view.build(folder, files, store.layout.blob)
    assert [arguments[1] for name, arguments in taken if name == "rename"] == [folder]
    assert taken[-1][0] == "rename"
    assert [name for name, _ in taken].count("link") == len(files)


@pytest.mark.parametrize("number", REFUSALS)
def test_without_hard_links_a_view_is_of_relative_symbolic_links(
    home: Path,
    store: Store,
    files: list[File],
    folder: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse(monkeypatch, number, "link")
    view.build(folder, files, store.layout.blob)
    check(folder)
    assert kinds(folder, store, files) == {"symlink"}
    assert not any(os.readlink(path).startswith("/") for path in files_below(folder))
    (home / "cache").rename(home / "moved")
    check(folder.replace("/cache/", "/moved/"))


def test_links_find_their_blobs_where_a_folder_of_the_cache_is_elsewhere(
    home: Path,
    store: Store,
    files: list[File],
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (home / "other/disk").mkdir(parents=True)
    (home / "cache/datasets").symlink_to(home / "other/disk")
    refuse(monkeypatch, errno.EXDEV, "link")
    view.build(folder, files, store.layout.blob)
    check(folder)
    Path(folder, "one.bin").unlink()
    view.build(folder, files, store.layout.blob)
    check(folder)


def test_without_any_links_a_view_is_of_read_only_copies(
    store: Store, files: list[File], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EPERM, "link", "symlink")
    view.build(folder, files, store.layout.blob)
    check(folder)
    assert kinds(folder, store, files) == {"copy"}
    assert {path.stat().st_mode & 0o222 for path in files_below(folder)} == {0}


def test_too_many_links_to_one_file_make_that_one_a_symbolic_link(
    store: Store, files: list[File], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = filesystem.link

    def some(source: str, target: str) -> None:
        if target.endswith("twin.bin"):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target)

    monkeypatch.setattr(filesystem, "link", some)
    view.build(folder, files, store.layout.blob)
    check(folder)
    assert [path.name for path in files_below(folder) if path.is_symlink()] == ["twin.bin"]


@pytest.mark.parametrize("step", ["link", "make_folder", "rename"])
def test_a_view_that_cannot_be_made_leaves_nothing(
    store: Store, files: list[File], folder: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.ENOSPC, step)
    with pytest.raises(StorageError, match=r"view .* cannot be made: No space left") as found:
        view.build(folder, files, store.layout.blob)
    assert found.value.code == 6
    assert files_below(store.layout.root + "/datasets") == []
    assert not Path(folder).exists()


def test_two_that_build_the_same_view_agree(
    store: Store, files: list[File], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = filesystem.rename

    def late(source: str, target: str) -> None:
        if target == folder:
            monkeypatch.setattr(filesystem, "rename", rename)
            view.build(folder, files[:2], store.layout.blob)  # another process, a bit faster
        rename(source, target)

    monkeypatch.setattr(filesystem, "rename", late)
    view.build(folder, files, store.layout.blob)
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
    store: Store, files: list[File], built: str, harm: Callable[[Path, bytes], None], name: str
) -> None:
    harm(Path(built, name), CONTENTS[name])
    view.build(built, files, store.layout.blob)
    check(built)
    assert kinds(built, store, files) == {"hardlink"}


def test_mending_what_is_whole_changes_nothing(store: Store, files: list[File], built: str) -> None:
    with steps() as taken:
        view.build(built, files, store.layout.blob)
    assert taken == []


def test_mending_adds_what_was_not_selected_before(
    store: Store, files: list[File], folder: str
) -> None:
    view.build(folder, files[:1], store.layout.blob)
    assert not view.is_whole(folder, files)
    view.build(folder, files[1:], store.layout.blob)
    check(folder)


def test_a_copy_with_the_right_bytes_is_let_be(store: Store, files: list[File], built: str) -> None:
    path = Path(built, "one.bin")
    path.unlink()
    path.write_bytes(CONTENTS["one.bin"])
    with steps() as taken:
        view.build(built, files, store.layout.blob)
    assert taken == []


def test_what_stands_in_the_way_is_named(store: Store, files: list[File], built: str) -> None:
    Path(built, "one.bin").unlink()
    Path(built, "one.bin").mkdir()
    with pytest.raises(StorageError, match=r"view .* cannot be made: .*one.bin"):
        view.build(built, files, store.layout.blob)
    assert [path.name for path in Path(built).glob(".*")] == []


def test_a_quick_look_sees_missing_files_and_sizes(files: list[File], built: str) -> None:
    path = Path(built, "one.bin")
    overwrite(path, b"short")
    assert not view.is_whole(built, files)
    path.unlink()
    assert not view.is_whole(built, files)
    assert view.is_whole(built, files[1:3])
    assert view.is_whole(built, [])
    assert not view.is_whole(f"{built}x", [])
    assert not view.is_whole(f"{built}/one.bin/below", files)


def test_a_quick_look_at_many_files_is_a_few_looks(files: list[File], built: str) -> None:
    few = files[1:2] * view.LOOKED_AT
    assert view.is_whole(built, [*few, File("nothing", "", 1, "")])
    assert not view.is_whole(built, [*few[1:], File("nothing", "", 1, "")])


@pytest.mark.parametrize("harm", [_remove, _replace, _shorten, _dangle, _loop])
def test_a_thorough_look_sees_every_byte(
    store: Store, files: list[File], built: str, harm: Callable[[Path, bytes], None]
) -> None:
    assert view.is_sound(built, files, store.layout.blob)
    path = Path(built, "twin.bin")
    path.unlink()
    path.write_bytes(CONTENTS["twin.bin"])
    assert view.is_sound(built, files, store.layout.blob)
    harm(path, CONTENTS["twin.bin"])
    assert not view.is_sound(built, files, store.layout.blob)


def test_syncing_reaches_every_folder_and_every_copy(
    store: Store, files: list[File], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = filesystem.link

    def some(source: str, target: str) -> None:
        if target.endswith(("one.bin", "twin.bin")):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target)

    monkeypatch.setattr(filesystem, "link", some)
    refuse(monkeypatch, errno.EPERM, "symlink")
    view.build(folder, files, store.layout.blob)
    with steps() as taken:
        view.sync(folder, files, store.layout.blob)
    assert {name for name, _ in taken} == {"sync_path"}
    assert {arguments[0] for _, arguments in taken} == {
        f"{folder}/one.bin",
        f"{folder}/twin.bin",
        f"{folder}/deep/er",
        f"{folder}/deep",
        folder,
        os.path.dirname(folder),
    }


# --- in a folder of the user ----------------------------------------------------------------------


def place(folder: str | Path, files: Sequence[File], built: str, **how: Any) -> Placed:
    return view.place(Target(str(folder), **how), str(folder), files, built)


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_files_are_placed_by_the_mode_asked_for(
    home: Path, store: Store, files: list[File], built: str, mode: str
) -> None:
    placed = place(home / "mine", files, built, mode=mode)
    check(home / "mine")
    assert kinds(home / "mine", store, files) == {mode}
    copied = sum(map(len, CONTENTS.values())) if mode == "copy" else 0
    assert placed == Placed(mode, copied)


def test_symbolic_links_point_to_the_view_with_its_real_names(
    home: Path, files: list[File], built: str
) -> None:
    place(home / "mine", files, built, mode="symlink")
    for name in CONTENTS:
        assert os.readlink(home / "mine" / name) == f"{built}/{name}"


def test_copies_are_the_users_own(home: Path, files: list[File], built: str) -> None:
    place(home / "mine", files, built, mode="copy")
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
    files: list[File],
    built: str,
    refused: tuple[str, ...],
    mode: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filesystem, "clone", filesystem.copy)
    refuse(monkeypatch, number, *refused)
    assert place(home / "mine", files, built).mode == mode
    check(home / "mine")


def test_a_mode_that_cannot_be_had_is_an_error(
    home: Path, files: list[File], built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EXDEV, "link")
    with pytest.raises(StorageError, match=r"'hardlink' cannot be had for .*one.bin") as found:
        place(home / "mine", files, built, mode="hardlink")
    assert found.value.code == 6
    assert "--link" in found.value.hint
    assert files_below(home / "mine") == []


def test_a_mode_that_does_not_exist_is_wrong_usage(
    home: Path, files: list[File], built: str
) -> None:
    with pytest.raises(UsageError, match="'teleport'"):
        place(home / "mine", files, built, mode="teleport")
    assert not (home / "mine").exists()


def test_a_view_is_not_placed_onto_itself(home: Path, files: list[File], built: str) -> None:
    (home / "mine").symlink_to(built)
    for folder in (built, home / "mine"):
        with pytest.raises(UsageError, match="where the cache keeps these files"):
            place(folder, files, built, mode="symlink", force=True)
    check(built)


def test_hard_links_lead_to_the_bytes_where_the_view_is_of_symbolic_links(
    home: Path, store: Store, files: list[File], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EPERM, "link")
    view.build(folder, files, store.layout.blob)
    monkeypatch.undo()
    place(home / "mine", files, folder, mode="hardlink")
    check(home / "mine")
    assert kinds(home / "mine", store, files) == {"hardlink"}


def test_files_in_the_way_are_listed_and_nothing_is_changed(
    home: Path, files: list[File], built: str
) -> None:
    mine = home / "mine"
    (mine / "deep/two.bin").mkdir(parents=True)
    (mine / "one.bin").write_bytes(b"my own")
    (mine / "twin.bin").symlink_to("nothing")
    before = sorted(mine.rglob("*"))
    with pytest.raises(StorageError, match="nothing was changed") as found:
        place(mine, files, built)
    assert found.value.code == 6
    assert found.value.facts["files"] == ["deep/two.bin", "one.bin", "twin.bin"]
    assert "\n  one.bin" in str(found.value)
    assert "--force" in found.value.hint
    assert sorted(mine.rglob("*")) == before
    assert (mine / "one.bin").read_bytes() == b"my own"


def test_a_file_where_a_folder_is_needed_is_in_the_way(
    home: Path, files: list[File], built: str
) -> None:
    mine = home / "mine"
    mine.mkdir()
    (mine / "deep").write_bytes(b"my own")
    with pytest.raises(StorageError) as found:
        place(mine, files, built)
    assert found.value.facts["files"] == ["deep"]
    place(mine, files, built, force=True)
    check(mine)


def test_of_many_files_in_the_way_some_are_shown(home: Path, store: Store) -> None:
    blob = publish(store, b"x")
    many = [File(f"{n:03}", blob.sha256, 1, blob.xxh3_128) for n in range(30)]
    folder = store.layout.view("shelf", "many", "1", "0" * 64)
    view.build(folder, many, store.layout.blob)
    (home / "mine").mkdir()
    for file in many:
        (home / "mine" / file.path).write_bytes(b"other")
    with pytest.raises(StorageError, match=r"019\n  and 10 more$") as found:
        place(home / "mine", many, folder)
    assert len(found.value.facts["files"]) == 30


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_force_replaces_files_and_only_them(
    home: Path, files: list[File], built: str, mode: str
) -> None:
    mine = home / "mine"
    mine.mkdir()
    (home / "precious").write_bytes(b"precious")
    (mine / "one.bin").symlink_to(home / "precious")
    (mine / "twin.bin").symlink_to("nothing")
    (mine / "other.bin").write_bytes(b"my own")
    with steps() as taken:
        place(mine, files, built, mode=mode, force=True)
    assert not {f"{mine}/{name}" for name in CONTENTS} & {
        arguments[0] for name, arguments in taken if name == "unlink"
    }  # a file is replaced by the rename itself: there is no moment without one
    assert (mine / "other.bin").read_bytes() == b"my own"
    (mine / "other.bin").unlink()
    check(mine)
    assert (home / "precious").read_bytes() == b"precious"


def test_force_never_replaces_a_folder(home: Path, files: list[File], built: str) -> None:
    mine = home / "mine"
    (mine / "one.bin").mkdir(parents=True)
    (mine / "deep").write_bytes(b"my own")
    with pytest.raises(StorageError, match="nothing was changed") as found:
        place(mine, files, built, force=True)
    assert found.value.facts["files"] == ["one.bin"]
    assert (mine / "deep").read_bytes() == b"my own"
    assert "--force" not in found.value.hint


@pytest.mark.parametrize("mode", ["auto", "hardlink", "symlink", "copy"])
def test_the_users_own_files_of_the_same_content_stay(
    home: Path, files: list[File], built: str, mode: str
) -> None:
    mine = home / "mine"
    mine.mkdir()
    (home / "elsewhere.bin").write_bytes(CONTENTS["twin.bin"])
    (mine / "one.bin").write_bytes(CONTENTS["one.bin"])
    (mine / "twin.bin").symlink_to(home / "elsewhere.bin")
    inode = (mine / "one.bin").stat().st_ino
    place(mine, files, built, mode=mode)
    check(mine)
    assert (mine / "one.bin").stat().st_ino == inode
    assert os.readlink(mine / "twin.bin") == str(home / "elsewhere.bin")


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_placing_again_does_nothing_and_says_what_stands_there(
    home: Path, files: list[File], built: str, mode: str
) -> None:
    place(home / "mine", files, built, mode=mode)
    for again in (mode, "auto"):
        with steps() as taken:
            assert place(home / "mine", files, built, mode=again) == Placed(mode, 0)
        assert [name for name, _ in taken] == ["make_folder"]


@pytest.mark.parametrize("before", ["hardlink", "symlink"])
@pytest.mark.parametrize("after", ["hardlink", "symlink", "copy"])
def test_links_to_the_cache_change_to_the_mode_asked_for(
    home: Path, store: Store, files: list[File], built: str, before: str, after: str
) -> None:
    place(home / "mine", files, built, mode=before)
    assert place(home / "mine", files, built, mode=after).mode == after
    check(home / "mine")
    assert kinds(home / "mine", store, files) == {after}
    check(built)
    assert kinds(built, store, files) == {"hardlink"}


def test_a_folder_of_the_user_may_be_a_symbolic_link(
    home: Path, files: list[File], built: str
) -> None:
    (home / "disk/deep").mkdir(parents=True)
    (home / "mine").symlink_to(home / "disk")
    place(home / "mine", files, built)
    assert (home / "mine").is_symlink()
    check(home / "disk")


def test_a_folder_in_the_folder_may_be_a_symbolic_link(
    home: Path, files: list[File], built: str
) -> None:
    (home / "disk").mkdir()
    (home / "mine").mkdir()
    (home / "mine/deep").symlink_to(home / "disk")
    place(home / "mine", files, built)
    assert (home / "mine/deep").is_symlink()
    assert (home / "disk/two.bin").read_bytes() == CONTENTS["deep/two.bin"]


@pytest.mark.parametrize("obstacle", ["file", "dangling"])
def test_a_folder_that_cannot_be_made_is_an_error_of_storage(
    home: Path, files: list[File], built: str, obstacle: str
) -> None:
    if obstacle == "file":
        (home / "mine").write_bytes(b"my own")
    else:
        (home / "mine").symlink_to("nothing")
    with pytest.raises(StorageError, match=r"cannot be put into .*mine") as found:
        place(home / "mine", files, built, force=True)
    assert found.value.code == 6


@pytest.mark.parametrize("step", ["link", "symlink", "copy", "rename"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_what_was_interrupted_is_completed(
    home: Path, files: list[File], built: str, step: str, number: int
) -> None:
    mode = {"link": "hardlink", "rename": "copy"}.get(step, step)

    def die() -> None:
        real = getattr(filesystem, step)
        left = iter(range(number))

        def mortal(*arguments: Any, **keys: Any) -> None:
            if next(left) == number - 1:
                os._exit(9)
            real(*arguments, **keys)

        setattr(filesystem, step, mortal)
        place(home / "mine", files, built, mode=mode)

    with pytest.raises(Died):
        forked(die)
    for path in files_below(home / "mine"):
        if not path.name.startswith(".dscache-"):
            assert path.read_bytes() == CONTENTS[path.relative_to(home / "mine").as_posix()]
    place(home / "mine", files, built, mode=mode)
    for path in (home / "mine").rglob(".dscache-*.tmp"):
        path.unlink()  # what a killed process leaves can be told by its name
    check(home / "mine")


@pytest.mark.parametrize("mode", ["hardlink", "symlink", "copy"])
def test_an_error_on_the_way_leaves_whole_files_only(
    home: Path, files: list[File], built: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = filesystem.rename

    def full(source: str, target: str) -> None:
        if target.endswith("three.bin"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, None, target)
        rename(source, target)

    monkeypatch.setattr(filesystem, "rename", full)
    with pytest.raises(StorageError, match=r"No space left on device .*three.bin"):
        place(home / "mine", files, built, mode=mode)
    check(home / "mine", ["one.bin", "deep/two.bin"])
    monkeypatch.undo()
    place(home / "mine", files, built, mode=mode)
    check(home / "mine")


def test_a_folder_that_may_not_be_written_is_an_error_of_storage(
    home: Path, files: list[File], built: str
) -> None:
    (home / "mine").mkdir()
    (home / "mine").chmod(0o555)

    def fail() -> None:
        with pytest.raises(StorageError, match=r"cannot be put into .*Permission denied"):
            place(home / "mine", files, built)

    unprivileged(fail)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_read_only_files_of_others_are_linked_symbolically(
    home: Path, store: Store, files: list[File], folder: str
) -> None:
    """Linux's protected_hardlinks, and what a group cache meets every day."""
    for file in files:
        os.chown(store.layout.blob(file.sha256), 12345, 12345)

    def build() -> None:
        try:
            filesystem.link(store.layout.blob(files[0].sha256), f"{home}/probe")
        except PermissionError:
            expected = "symlink"
        else:
            expected = "hardlink"
        view.build(folder, files, store.layout.blob)
        assert kinds(folder, store, files) == {expected}
        placed = place(home / "mine", files, folder)
        check(home / "mine")
        assert placed.mode in (expected, "reflink")

    unprivileged(build)


def test_two_that_place_the_same_at_once_agree(
    home: Path, files: list[File], built: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = filesystem.link

    def late(source: str, target: str) -> None:
        monkeypatch.setattr(filesystem, "link", link)
        place(home / "mine", files, built, mode="hardlink")  # another process, a bit faster
        link(source, target)

    monkeypatch.setattr(filesystem, "link", late)
    place(home / "mine", files, built, mode="hardlink")
    check(home / "mine")
