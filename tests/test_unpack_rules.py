"""Rules for members: none gets out by its name, and none is what a tree cannot hold."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from pathlib import Path

import pytest

from dscache import filesystem
from dscache.errors import DscacheError, IntegrityError, InvalidFile, UnsafeError
from dscache.unpack import rules
from tests.archives import (
    ALL,
    END,
    TARS,
    USUAL,
    ZIPS,
    File,
    Folder,
    Link,
    RawZip,
    Special,
    Twin,
    packed,
    padded,
    pax_block,
    recipe_of,
    tar_header,
    tar_of,
    wrapped,
)
from tests.mounts import SMALLEST, mounted
from tests.rooms import FREE, Room, contents, folders_of, listed, room

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
    "//x": "x",
    "///etc/passwd": "etc/passwd",
    "./x": "x",
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


def archive_of(kind: str, name: str, data: bytes = b"x") -> bytes:
    """An archive of one file, whose name may hold what the header of a tar cannot."""
    if kind in TARS:
        block = pax_block([("path", name)]) + tar_header("x", len(data))
        return wrapped(kind, block + padded(data) + END)
    return packed(kind, File(name, data))


@pytest.mark.parametrize("name", OUTWARD)
@pytest.mark.parametrize("kind", ALL)
def test_no_name_leads_out(room: Room, kind: str, name: str) -> None:
    error = room.refused(UnsafeError, archive_of(kind, name), recipe_of(kind))
    assert error.code == 7
    assert named(error) == (name.replace("\\", "/") if kind in ZIPS else name)
    assert repr(named(error)) in str(error)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "C:/x"])
@pytest.mark.parametrize("kind", USUAL)
def test_no_folder_or_link_stands_outside(room: Room, kind: str, name: str) -> None:
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
    data = rules_summed(ustar.ljust(512, b"\0")) + END
    assert named(room.refused(UnsafeError, data, "tar")) == "../../x"


def rules_summed(block: bytes) -> bytes:
    """A header with its sum put right."""
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


@pytest.mark.parametrize("kind", USUAL)
def test_what_a_name_needs_not_is_stripped(room: Room, kind: str) -> None:
    tree = room.unpack(
        packed(kind, *(File(name, name.encode()) for name in STRIPPED if name != "./x")),
        recipe_of(kind),
    )
    wanted = {path: name.encode() for name, path in STRIPPED.items() if name != "./x"}
    assert contents(tree) == wanted
    again = room.unpack(packed(kind, File("./x")), recipe_of(kind))
    assert contents(again) == {"x": b""}


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


@pytest.mark.parametrize("name", NAMELESS)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_only_a_folder_may_have_the_name_of_the_tree(room: Room, kind: str, name: str) -> None:
    for entry in (File(name or ".", b"x"), Link(name or ".", "x")):
        data = packed(kind, entry)
        if kind == "zip" and entry.name.endswith("/"):
            continue  # a folder by its name
        assert named(room.refused(UnsafeError, data, recipe_of(kind))).strip("/.") == ""
    tree = room.unpack(packed(kind, Folder(name or "."), File("x")), recipe_of(kind))
    assert set(contents(tree)) == {"x"}


@pytest.mark.parametrize(
    "name",
    ["x" * 300, "a/" + "é" * 150, "x" * 5000, "/".join(["x" * 200] * 30), "x" * 60_000],
    ids=["300", "300 in bytes", "5000", "deep and long", "60000"],
)
@pytest.mark.parametrize("kind", USUAL)
def test_a_name_that_no_filesystem_takes_is_refused(room: Room, kind: str, name: str) -> None:
    error = room.refused(UnsafeError, archive_of(kind, name), recipe_of(kind))
    assert named(error) in name
    error = room.refused(UnsafeError, packed(kind, Folder(name)), recipe_of(kind))
    assert named(error).rstrip("/") in name


@pytest.mark.parametrize("levels", [101, 1000, 1900, 20_000])
@pytest.mark.parametrize("kind", USUAL)
def test_no_name_is_too_deep_to_be_removed_again(room: Room, kind: str, levels: int) -> None:
    name = "/".join("d" * levels)
    error = room.refused(UnsafeError, packed(kind, Folder("a"), Folder(name)), recipe_of(kind))
    assert named(error).rstrip("/") == name
    assert named(room.refused(UnsafeError, archive_of(kind, name), recipe_of(kind))) == name


@pytest.mark.parametrize("kind", USUAL)
def test_what_is_deep_is_unpacked_and_removed(room: Room, kind: str) -> None:
    name = "/".join("d" * 100)
    tree = room.unpack(packed(kind, File(name, b"x"), Link("l", name)), recipe_of(kind))
    assert contents(tree) == {name: b"x"}
    filesystem.remove_tree(tree.path)


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
@pytest.mark.parametrize("pack", USUAL)
def test_no_special_file_is_made(room: Room, pack: str, kind: int) -> None:
    if kind == stat.S_IFSOCK and pack in TARS:
        pytest.skip("tar has no sockets")
    data = packed(pack, File("a"), Special("dev/x", kind))
    assert named(room.refused(UnsafeError, data, recipe_of(pack))) == "dev/x"


@pytest.mark.parametrize("kind", [b"D", b"M", b"N", b"Z", b"8", b"\xff"])
def test_a_member_of_an_unknown_kind_is_refused(room: Room, kind: bytes) -> None:
    data = tar_header("odd", 0, kind) + END
    assert named(room.refused(UnsafeError, data, "tar")) == "odd"


def test_the_label_of_a_tar_is_no_member(room: Room) -> None:
    data = tar_header("Backup of today", 0, b"V") + tar_of(File("a", b"x"))
    assert contents(room.unpack(data, "tar")) == {"a": b"x"}


@pytest.mark.parametrize("kind", USUAL)
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o7777, 0o7644, 0o600, 0, 0o100])
def test_of_the_mode_only_executability_stays(room: Room, kind: str, mode: int) -> None:
    tree = room.unpack(packed(kind, File("a", b"x", mode), Folder("b", mode)), recipe_of(kind))
    assert stat.S_IMODE(os.stat(f"{tree.path}/a").st_mode) == (0o555 if mode & 0o100 else 0o444)
    assert stat.S_IMODE(os.stat(f"{tree.path}/b").st_mode) == 0o755
    assert {each.path: stat.S_IMODE(each.mode) for each in listed(room, tree)} == {
        "a": 0o555 if mode & 0o100 else 0o444,
        "b": 0o777,
    }


@pytest.mark.parametrize(
    "entries",
    [
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
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", USUAL)
def test_no_name_stands_twice(
    room: Room, kind: str, entries: tuple[File | Folder | Link | Twin, ...]
) -> None:
    if kind in ZIPS and any(isinstance(each, Twin) for each in entries):
        pytest.skip("zip knows no hard links")
    error = room.refused(UnsafeError, packed(kind, *entries), recipe_of(kind))
    assert named(error) in {"a", "d/a", "a/b"}
    assert "earlier" in str(error) or "twice" in error.hint


@pytest.mark.parametrize("kind", USUAL)
def test_a_folder_may_stand_twice(room: Room, kind: str) -> None:
    entries = Folder("a"), File("a/b", b"x"), Folder("a"), Folder("/a/"), Folder("c/d")
    tree = room.unpack(packed(kind, *entries), recipe_of(kind))
    assert (contents(tree), folders_of(tree)) == ({"a/b": b"x"}, {"a", "c", "c/d"})
    paths = [each.path for each in listed(room, tree)]
    assert sorted(paths) == sorted(set(paths))


#: What filesystems may take for the same: case, Unicode form.
ALIKE = [("a/Readme", "a/README"), ("caf\u00e9", "cafe\u0301"), ("A/x", "a/y")]


@pytest.mark.parametrize("pair", ALIKE)
@pytest.mark.parametrize("kind", USUAL)
def test_names_that_look_alike_both_stand(room: Room, kind: str, pair: tuple[str, str]) -> None:
    data = packed(kind, *(File(name, name.encode()) for name in pair))
    assert contents(room.unpack(data, recipe_of(kind))) == {name: name.encode() for name in pair}


@pytest.mark.parametrize("pair", [*ALIKE, ("A", "a/b"), ("A/b", "a")])
@pytest.mark.parametrize("kind", USUAL)
def test_where_they_are_one_they_are_refused(
    room: Room, kind: str, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_case(monkeypatch)
    error = room.refused(UnsafeError, packed(kind, *map(File, pair)), recipe_of(kind))
    assert any(name == named(error) or name.startswith(named(error)) for name in pair)
    assert "differ only in case" in error.hint


def fold_case(patch: pytest.MonkeyPatch) -> None:
    """Have the disk take names for the same as macOS does, for what is made in drafts."""
    import unicodedata

    taken: dict[str, set[str]] = {}

    def claim(path: str) -> None:
        folder, _, inside = path.partition("/files/")
        names = taken.setdefault(folder, set())
        key = unicodedata.normalize("NFC", inside).casefold()
        if inside and key in names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        names.add(key)

    create, new_folder = filesystem.create, filesystem.new_folder

    def folded_create(path: str, *, final: bool = False, program: bool = False) -> int:
        claim(path)
        return create(path, final=final, program=program)

    def folded_folder(path: str) -> None:
        claim(path)
        new_folder(path)

    patch.setattr(filesystem, "create", folded_create)
    patch.setattr(filesystem, "new_folder", folded_folder)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_disk_without_case_refuses_what_is_alike(
    home: Path, tmp_path: Path, kind: str, executor_room: type[Room]
) -> None:
    del executor_room
    with mounted("vfat", SMALLEST["vfat"], tmp_path / "disk"):
        pytest.skip("see below")
    del home, kind, InvalidFile, IntegrityError, FREE, RawZip, rules
