"""Rules for members: none gets out by its name, and none is what a tree cannot hold."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dscache import filesystem
from dscache.errors import DscacheError, UnsafeError
from tests.archives import (
    ALL,
    END,
    TARS,
    USUAL,
    ZIPS,
    Entry,
    File,
    Folder,
    Link,
    Special,
    Twin,
    packed,
    padded,
    pax_block,
    recipe_of,
    summed,
    tar_header,
    tar_of,
    wrapped,
)
from tests.mounts import PLAIN, SMALLEST, mounted
from tests.rooms import Room, contents, folders_of, listed, room

__all__ = ["room"]

OUTWARD = [
    "..",
    "../",
    "../x",
    "../../x",
    "../../../../x",
    "../../../../../../../../../../x",
    "./../x",
    "/../x",
    "a/..",
    "a/../x",
    "a/../../x",
    "a/b/../../../x",
    "a/..//../x",
    "..\\x",
    "..\\..\\x",
    "a\\..\\..\\x",
    "a/..\\..\\x",
    "\\..\\x",
    "C:/x",
    "C:\\x",
    "c:\\..\\x",
    "./C:/x",
    "/C:/x",
    "a\0b",
    "a/\0",
    "\0../x",
]
#: Names that lead to the tree itself.
NAMELESS = ["", ".", "/", "./", "//", "/./."]
#: Names that are cleaned, and how they stand in the tree then.
STRIPPED = {
    "/x": "x",
    "//y": "y",
    "///etc/passwd": "etc/passwd",
    "./z": "z",
    "a//b/./c": "a/b/c",
    "...": "...",
    "..x/..y": "..x/..y",
    "a../b": "a../b",
    "~/x": "~/x",
    "C:": "C:",
    "a/C:/x": "a/C:/x",
    "-rf": "-rf",
    "$HOME/`x`": "$HOME/`x`",
    "a\nb": "a\nb",
}


def named(error: DscacheError) -> str:
    """The member that an error names."""
    return str(error.facts["member"])


def path_in(kind: str, name: str) -> str:
    """A name as archives of this kind mean it: old programs wrote backslashes into zip."""
    return name.replace("\\", "/") if kind in ZIPS else name


def archive_of(kind: str, name: str, data: bytes = b"x") -> bytes:
    """An archive of one file, whose name may hold what the header of a tar cannot."""
    if kind in TARS:
        block = pax_block([("path", name)]) + tar_header("x", len(data))
        return wrapped(kind, block + padded(data) + END)
    return packed(kind, File(name, data))


@pytest.mark.parametrize("kind", ALL)
def test_no_name_leads_out(room: Room, kind: str) -> None:
    for name in OUTWARD:
        error = room.refused(UnsafeError, archive_of(kind, name), recipe_of(kind))
        assert error.code == 7
        assert named(error).rstrip("/") == path_in(kind, name).rstrip("/")  # tarfile strips it
        assert repr(named(error)) in str(error)


@pytest.mark.parametrize("kind", USUAL)
def test_no_folder_or_link_stands_outside(room: Room, kind: str) -> None:
    for name in ("../x", "a/../../x", "..", "C:/x"):
        for entry in (Folder(name), Link(name, "a")):
            error = room.refused(UnsafeError, packed(kind, File("a"), entry), recipe_of(kind))
            assert named(error).rstrip("/") == name


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../../x"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_no_name_of_an_older_tar_leads_out(room: Room, format: int, name: str) -> None:  # noqa: A002
    long = "a/" * 60 + "../" * 70 + "x"
    assert named(room.refused(UnsafeError, tar_of(File(name), format=format), "tar")) == name
    if format == tarfile.GNU_FORMAT:
        assert named(room.refused(UnsafeError, tar_of(File(long), format=format), "tar")) == long


def test_a_prefix_leads_out_as_little_as_a_name(room: Room) -> None:
    header = tar_header("x", 0)
    ustar = header[:257] + b"ustar\x0000" + header[265:345] + b"../..".ljust(155, b"\0")
    data = summed(ustar.ljust(512, b"\0")) + END
    assert named(room.refused(UnsafeError, data, "tar")) == "../../x"


@pytest.mark.parametrize("kind", USUAL)
def test_what_a_name_needs_not_is_stripped(room: Room, kind: str) -> None:
    data = packed(kind, *(File(name, path.encode()) for name, path in STRIPPED.items()))
    tree = room.unpack(data, recipe_of(kind))
    assert contents(tree) == {path: path.encode() for path in STRIPPED.values()}


@pytest.mark.parametrize("kind", USUAL)
def test_an_absolute_name_stays_inside(room: Room, kind: str) -> None:
    with_victim = packed(kind, File(str(room.victim), b"gone"), File(f"{room.prey}/new", b"new"))
    before = room.victim.read_bytes(), sorted(room.prey.iterdir())
    tree = room.unpack(with_victim, recipe_of(kind))
    assert (room.victim.read_bytes(), sorted(room.prey.iterdir())) == before
    assert contents(tree)[str(room.victim).lstrip("/")] == b"gone"


@pytest.mark.parametrize("kind", USUAL)
def test_a_share_of_windows_is_a_plain_name(room: Room, kind: str) -> None:
    tree = room.unpack(packed(kind, File("\\\\host\\share\\x")), recipe_of(kind))
    wanted = "host/share/x" if kind in ZIPS else "\\\\host\\share\\x"
    assert set(contents(tree)) == {wanted}


@pytest.mark.parametrize("kind", USUAL)
def test_only_a_folder_may_have_the_name_of_the_tree(room: Room, kind: str) -> None:
    for name in NAMELESS:
        if kind in TARS or not name.endswith("/"):  # which makes it a folder
            for entry in (File(name, b"x"), Link(name, "x")):
                error = room.refused(UnsafeError, packed(kind, entry), recipe_of(kind))
                assert named(error).strip("/.") == ""
    tree = room.unpack(packed(kind, *map(Folder, NAMELESS), File("x")), recipe_of(kind))
    assert (set(contents(tree)), folders_of(tree)) == ({"x"}, set())


@pytest.mark.parametrize("kind", USUAL)
def test_a_name_that_no_filesystem_takes_is_refused(room: Room, kind: str) -> None:
    deep = "/".join(["x" * 200] * 30)
    for name in ("x" * 300, "a/" + "é" * 150, "x" * 5000, deep, "x" * 60_000):
        error = room.refused(UnsafeError, archive_of(kind, name), recipe_of(kind))
        assert name.startswith(named(error))
        error = room.refused(UnsafeError, packed(kind, Folder(name)), recipe_of(kind))
        assert name.startswith(named(error).rstrip("/"))


@pytest.mark.parametrize("kind", USUAL)
def test_no_name_is_too_deep_to_be_removed_again(room: Room, kind: str) -> None:
    for levels in (101, 1000, 1900, 20_000):
        name = "/".join("d" * levels)
        for data in (packed(kind, Folder("a"), Folder(name)), archive_of(kind, name)):
            error = room.refused(UnsafeError, data, recipe_of(kind))
            assert named(error).rstrip("/") == name


@pytest.mark.parametrize("kind", USUAL)
def test_what_is_deep_is_unpacked_and_removed(room: Room, kind: str) -> None:
    name = "/".join("d" * 100)
    tree = room.unpack(packed(kind, File(name, b"x"), Link("l", name)), recipe_of(kind))
    assert contents(tree) == {name: b"x"}
    filesystem.remove_tree(tree.path)


@pytest.mark.parametrize("kind", USUAL)
def test_no_special_file_is_made(room: Room, kind: str) -> None:
    sockets = () if kind in TARS else (stat.S_IFSOCK,)  # tar has none
    for special in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, *sockets):
        data = packed(kind, File("a"), Special("dev/x", special))
        assert named(room.refused(UnsafeError, data, recipe_of(kind))) == "dev/x"


def test_a_member_of_an_unknown_kind_is_refused(room: Room) -> None:
    for kind in (b"D", b"M", b"N", b"Z", b"8", b"\xff"):
        data = tar_header("odd", 0, kind) + END
        assert named(room.refused(UnsafeError, data, "tar")) == "odd"


def test_the_label_of_a_tar_is_no_member(room: Room) -> None:
    data = tar_header("Backup of today", 0, b"V") + tar_of(File("a", b"x"))
    assert contents(room.unpack(data, "tar")) == {"a": b"x"}


@pytest.mark.parametrize("kind", USUAL)
def test_of_the_mode_only_executability_stays(room: Room, kind: str) -> None:
    modes = 0o4755, 0o2755, 0o1777, 0o7777, 0o7644, 0o600, 0, 0o100
    files = [File(f"{mode:o}", b"x", mode) for mode in modes]
    folders = [Folder(f"{mode:o}.d", mode) for mode in modes]
    tree = room.unpack(packed(kind, *files, *folders), recipe_of(kind))
    members = {each.path: each.mode for each in listed(room, tree)}
    for mode in modes:
        wanted = 0o555 if mode & 0o100 else 0o444
        path = f"{tree.path}/{mode:o}"
        assert stat.S_IMODE(members[f"{mode:o}"]) == wanted
        assert stat.S_IMODE(os.stat(path).st_mode) == wanted & ~umask()
        assert stat.S_IMODE(os.stat(f"{path}.d").st_mode) == 0o777 & ~umask()


def umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


TWICE: list[tuple[Entry, ...]] = [
    (File("a", b"1"), File("a", b"2")),
    (File("d/a", b"1"), File("d//./a", b"1")),
    (File("a"), File("/a")),
    (File("a"), Folder("a")),
    (Folder("a"), File("a")),
    (File("a"), File("a/b")),
    (File("a/b"), File("a")),
    (File("b"), Link("a", "b"), File("a")),
    (File("a"), Link("a", "b")),
    (Link("a", "b"), Link("a", "c")),
    (File("b"), Twin("a", "b"), File("a", b"2")),
    (File("a"), Twin("a", "a")),
]


@pytest.mark.parametrize("kind", USUAL)
def test_no_name_stands_twice(room: Room, kind: str) -> None:
    for entries in TWICE:
        if kind in TARS or not any(isinstance(each, Twin) for each in entries):
            error = room.refused(UnsafeError, packed(kind, *entries), recipe_of(kind))
            assert named(error) in {"a", "d/a"}, entries
            assert "twice" in error.hint


@pytest.mark.parametrize("kind", USUAL)
def test_a_folder_may_stand_twice(room: Room, kind: str) -> None:
    entries = Folder("a"), File("a/b", b"x"), Folder("a"), Folder("/a/"), Folder("c/d")
    tree = room.unpack(packed(kind, *entries), recipe_of(kind))
    assert (contents(tree), folders_of(tree)) == ({"a/b": b"x"}, {"a", "c", "c/d"})
    paths = [each.path for each in listed(room, tree)]
    assert sorted(paths) == sorted(set(paths))


#: What filesystems may take for the same: case, Unicode form.
ALIKE = [("a/Readme", "a/README"), ("caf\u00e9", "cafe\u0301"), ("A/x", "a/y")]


@pytest.mark.parametrize("kind", USUAL)
def test_names_that_look_alike_both_stand(room: Room, kind: str) -> None:
    names = [name for pair in ALIKE for name in pair]
    tree = room.unpack(
        packed(kind, *(File(name, name.encode()) for name in names)), recipe_of(kind)
    )
    assert contents(tree) == {name: name.encode() for name in names}


@pytest.mark.parametrize("kind", USUAL)
def test_where_they_are_one_they_are_refused(
    room: Room, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_case(monkeypatch)
    for pair in (*ALIKE, ("A", "a/b"), ("A/b", "a")):
        error = room.refused(UnsafeError, packed(kind, *map(File, pair)), recipe_of(kind))
        assert any(name.startswith(named(error)) for name in pair)
        assert "differ only in case" in error.hint


def fold_case(patch: pytest.MonkeyPatch) -> None:
    """Have the disk take names for the same as macOS does, for what is made in drafts."""
    taken: dict[str, set[str]] = {}

    def claim(path: str) -> None:
        folder, _, inside = path.partition("/files/")
        names = taken.setdefault(folder, set())
        key = unicodedata.normalize("NFC", inside).casefold()
        if inside and key in names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        names.add(key)

    create, new_folder = filesystem.create, filesystem.new_folder

    def folded_create(path: str, **options: bool) -> int:
        claim(path)
        return create(path, **options)

    def folded_folder(path: str) -> None:
        claim(path)
        new_folder(path)

    patch.setattr(filesystem, "create", folded_create)
    patch.setattr(filesystem, "new_folder", folded_folder)


@pytest.mark.parametrize("filesystem_kind", PLAIN)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_disk_without_case_refuses_what_is_alike(
    tmp_path: Path, kind: str, filesystem_kind: str
) -> None:
    disks = mounted(filesystem_kind, SMALLEST[filesystem_kind], tmp_path / "disk")
    with disks as disk, ThreadPoolExecutor(2) as executor:
        room = Room(disk, executor)
        for pair in (("a/Readme", "a/README"), ("A/x", "a/y"), ("A", "a/b")):
            data = packed(kind, *map(File, pair))
            error = room.refused(UnsafeError, data, recipe_of(kind))
            assert "differ only in case" in error.hint
        tree = room.unpack(packed(kind, File("a/x", b"x"), File("b/x")), recipe_of(kind))
        assert contents(tree) == {"a/x": b"x", "b/x": b""}
