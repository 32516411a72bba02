"""Views on real filesystems: with reflinks, without any links, and without upper and lower case."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from dscache import copying, disk, view
from dscache.errors import StorageError
from dscache.view import Item, Placed
from tests.making import content
from tests.mounts import MIB, PLAIN, REFLINKING, SMALLEST, mounted
from tests.views import (
    CONTENTS,
    EVERYTHING,
    EXTRAS,
    at_once,
    check,
    kinds,
    place,
    stocked,
    tree,
    with_folders,
)

TOTAL = sum(map(len, CONTENTS.values()))
CASES = {"One.bin": b"upper", "one.bin": b"lower", "other/two.bin": b"two"}


def mount(kind: str, folder: Path) -> Iterator[Path]:
    """A disk of that kind, for a fixture."""
    with mounted(kind, SMALLEST[kind], folder / "disk") as found:
        yield found


@pytest.fixture(params=REFLINKING)
def reflinking(request: pytest.FixtureRequest, home: Path) -> Iterator[Path]:
    yield from mount(request.param, home)


@pytest.fixture(params=["ext4", "tmpfs"])
def linking(request: pytest.FixtureRequest, home: Path) -> Iterator[Path]:
    yield from mount(request.param, home)


@pytest.fixture(params=PLAIN)
def plain(request: pytest.FixtureRequest, home: Path) -> Iterator[Path]:
    yield from mount(request.param, home)


def built(root: Path, items: list[Item]) -> str:
    """The view of these items in a cache at `root`."""
    folder = f"{root}/datasets/shelf/data/1+00000000"
    view.build(folder, items)
    return folder


# --- reflinks -------------------------------------------------------------------------------------


def test_auto_is_reflinks_where_they_can_be_had(reflinking: Path) -> None:
    items = [*stocked(reflinking / "cache"), *EXTRAS]
    os.chmod(items[1].source, 0o555)
    mine = reflinking / "mine"
    assert place(mine, items, built(reflinking / "cache", items)) == Placed("reflink")
    assert tree(mine) == EVERYTHING
    assert kinds(mine, items[:4]) == {"copy"}
    assert (mine / "one.bin").stat().st_mode & 0o333 == 0o200
    assert os.access(mine / "deep/two.bin", os.X_OK)
    (mine / "one.bin").write_bytes(b"the user's own")
    assert Path(items[0].source).read_bytes() == CONTENTS["one.bin"]


def test_what_windows_uses_shares_bytes_too(
    reflinking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reflinking / "from").write_bytes(content(MIB))
    monkeypatch.setattr(copying, "_LINUX", False)
    monkeypatch.setattr(copying, "_WINDOWS", True)
    copying.clone(str(reflinking / "from"), str(reflinking / "to"))
    assert (reflinking / "to").read_bytes() == content(MIB)
    with pytest.raises(FileExistsError):
        copying.clone(str(reflinking / "from"), str(reflinking / "to"))


def test_what_windows_uses_says_where_it_cannot(
    linking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (linking / "from").write_bytes(b"x")
    monkeypatch.setattr(copying, "_LINUX", False)
    monkeypatch.setattr(copying, "_WINDOWS", True)
    with pytest.raises(OSError, match="not supported") as caught:
        copying.clone(str(linking / "from"), str(linking / "to"))
    assert caught.value.errno in copying.UNSUPPORTED
    assert not (linking / "to").exists()


def test_reflinks_take_no_room(reflinking: Path) -> None:
    items = stocked(reflinking / "cache", {"big.bin": content(16 * MIB)})
    folder = built(reflinking / "cache", items)
    os.sync()
    before = disk.free_space(str(reflinking))
    for number in range(4):
        place(reflinking / f"mine{number}", items, folder, mode="reflink")
    os.sync()
    assert before - disk.free_space(str(reflinking)) < 8 * MIB


def test_reflinks_replace_what_is_in_the_way(reflinking: Path) -> None:
    items = stocked(reflinking / "cache")
    folder = built(reflinking / "cache", items)
    place(reflinking / "mine", items, folder, mode="hardlink")
    (reflinking / "mine/twin.bin").unlink()
    (reflinking / "mine/twin.bin").write_bytes(b"my own")
    with pytest.raises(StorageError, match="nothing was changed"):
        place(reflinking / "mine", items, folder, mode="reflink")
    assert kinds(reflinking / "mine", items[:3]) == {"hardlink"}
    place(reflinking / "mine", items, folder, mode="reflink", force=True)
    assert tree(reflinking / "mine") == with_folders(CONTENTS)
    assert kinds(reflinking / "mine", items) == {"copy"}


def test_many_reflink_the_same_at_once(reflinking: Path) -> None:
    items = stocked(reflinking / "cache")
    folder = built(reflinking / "cache", items)
    at_once(3, lambda: place(reflinking / "mine", items, folder))
    assert tree(reflinking / "mine") == with_folders(CONTENTS)


def test_no_link_but_symbolic_ones_leads_to_another_filesystem(
    home: Path, reflinking: Path
) -> None:
    items = stocked(home / "cache")
    placed = place(reflinking / "mine", items, built(home / "cache", items))
    across = os.strerror(errno.EXDEV)
    assert placed == Placed("symlink", 0, f"reflink: {across}; hardlink: {across}")
    check(reflinking / "mine")
    for mode in ("reflink", "hardlink"):
        with pytest.raises(StorageError, match=f"{mode}.*{across}"):
            place(reflinking / mode, items, built(home / "cache", items), mode=mode)


# --- no reflinks, but other links -----------------------------------------------------------------


def test_auto_is_hard_links_where_there_are_no_reflinks(linking: Path) -> None:
    items = [*stocked(linking / "cache"), *EXTRAS]
    placed = place(linking / "mine", items, built(linking / "cache", items))
    assert placed == Placed("hardlink", 0, f"reflink: {os.strerror(errno.EOPNOTSUPP)}")
    assert tree(linking / "mine") == EVERYTHING


def test_a_file_with_all_the_links_it_can_have(home: Path) -> None:
    """65,000 on ext4; empty files are as many in some datasets."""
    for found in mount("ext4", home):
        (item,) = stocked(found / "cache", {"empty": b""})
        for number in range(64_998):
            os.link(item.source, f"{found}/{number}")
        items = [structs.replace(item, path=f"{number}") for number in range(3)]
        folder = built(found / "cache", items)
        assert [os.path.islink(f"{folder}/{number}") for number in range(3)] == [False, True, True]
        placed = place(found / "mine", items, folder)
        assert placed.mode == "symlink"
        assert f"hardlink: {os.strerror(errno.EMLINK)}" in placed.why


# --- no links, and no upper and lower case --------------------------------------------------------


def test_without_any_links_a_view_is_of_copies(plain: Path) -> None:
    items = stocked(plain / "cache")
    folder = built(plain / "cache", items)
    assert tree(folder) == with_folders(CONTENTS)
    assert view.is_sound(folder, items)
    assert [path.name for path in Path(folder).parent.iterdir()] == [Path(folder).name]


def test_auto_is_copies_where_there_are_no_links(home: Path, plain: Path) -> None:
    items = stocked(home / "cache")
    folder = built(home / "cache", items)
    placed = place(plain / "mine", items, folder)
    assert (placed.mode, placed.copied) == ("copy", TOTAL)
    assert [each.split(":")[0] for each in placed.why.split("; ")] == [
        "reflink",
        "hardlink",
        "symlink",
    ]
    assert tree(plain / "mine") == with_folders(CONTENTS)
    assert place(plain / "mine", items, folder) == Placed("copy")


def test_many_copy_the_same_at_once(home: Path, plain: Path) -> None:
    items = stocked(home / "cache")
    folder = built(home / "cache", items)
    at_once(3, lambda: place(plain / "mine", items, folder))
    assert tree(plain / "mine") == with_folders(CONTENTS)


def test_links_of_archives_cannot_be_had_there(home: Path, plain: Path) -> None:
    items = [*stocked(home / "cache"), *EXTRAS]
    with pytest.raises(StorageError, match=r"cannot be put into .*mine: .*link"):
        place(plain / "mine", items, built(home / "cache", items))


def test_two_items_that_differ_by_case_are_an_error(home: Path, plain: Path) -> None:
    items = stocked(home / "cache", CASES)
    folder = built(home / "cache", items)
    with pytest.raises(StorageError, match="ignores case") as found:
        place(plain / "mine", items, folder)
    assert found.value.facts["files"] == ["one.bin"]
    assert tree(plain / "mine") == {"One.bin": b"upper", "other": "", "other/two.bin": b"two"}
    with pytest.raises(StorageError, match=r"has the name one.bin here"):
        built(plain / "cache", items)
    assert tree(plain / "cache/datasets/shelf/data") == {}


def test_force_does_not_replace_one_item_by_another(home: Path, plain: Path) -> None:
    items = stocked(home / "cache", CASES)
    folder = built(home / "cache", items)
    for mine in (b"my own", b"upper", b"lower"):
        (plain / "ONE.bin").write_bytes(mine)
        with pytest.raises(StorageError, match="nothing was changed"):
            place(plain, items, folder, force=True)
        assert tree(plain) == {"ONE.bin": mine}


def test_a_users_file_of_another_case_is_in_the_way(home: Path, plain: Path) -> None:
    items = stocked(home / "cache")
    folder = built(home / "cache", items)
    (plain / "DEEP").mkdir()
    (plain / "DEEP/Two.bin").write_bytes(b"my own")
    with pytest.raises(StorageError, match="nothing was changed") as found:
        place(plain, items, folder)
    assert found.value.facts["files"] == ["deep/two.bin"]
    assert tree(plain) == {"DEEP": "", "DEEP/Two.bin": b"my own"}
    place(plain, items, folder, force=True)
    assert (plain / "deep/two.bin").read_bytes() == CONTENTS["deep/two.bin"]


def test_mending_does_not_replace_one_item_by_another(plain: Path) -> None:
    upper, lower, _ = stocked(plain / "cache", CASES)
    folder = built(plain / "cache", [upper])
    with pytest.raises(StorageError, match=r"has the name one.bin here"):
        view.build(folder, [lower])
    assert tree(folder) == {"One.bin": b"upper"}
    Path(folder, "One.bin").chmod(0o666)
    Path(folder, "One.bin").write_bytes(b"damaged")
    view.build(folder, [upper])
    assert tree(folder) == {"One.bin": b"upper"}
