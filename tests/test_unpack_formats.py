"""Formats: what Python's tarfile and zipfile pack comes out as they would unpack it themselves."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dscache.store.members import FOLDER, LINK, PROGRAM, Member
from dscache.store.trees import Tree
from tests.archives import (
    ALL,
    SINGLES,
    TARS,
    Entry,
    File,
    Folder,
    Link,
    Twin,
    compressed,
    packed,
    recipe_of,
    tar_of,
    wrapped,
    zip_of,
)
from tests.making import content
from tests.rooms import FREE, Room, contents, folders_of, listed, room, walked

__all__ = ["room"]

FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}
_LINUX = sys.platform.startswith("linux")
_ODD = [
    "a b",
    "a\nb",
    "é",
    "日本",
    "💾",
    "\u202egnp.exe",
    ".hidden",
    "-rf",
    "~",
    "'\"",
    "%00",
    "a:b",
    "x" * 150,
    "...",
    "CON",
    "end. ",
]
_LETTERS = st.characters(exclude_characters="/\\\0:", exclude_categories=["Cs"])
NAMES = st.one_of(
    st.sampled_from("abcde"),
    st.sampled_from(_ODD if _LINUX else ["a b", "é"]),
    st.text(_LETTERS if _LINUX else "xyz", min_size=1, max_size=12),
).filter(lambda name: name not in (".", ".."))
#: Names that are no UTF-8, as Python has them.
RAW_NAMES = NAMES | st.sampled_from(["caf\udce9", "\udcff\udcfe"] if _LINUX else ["x"])
CONTENTS = st.one_of(st.binary(max_size=40), st.sampled_from([0, 511, 512, 513, 5000]).map(content))


@st.composite
def trees(draw: st.DrawFn, names: st.SearchStrategy[str], *, twins: bool) -> list[Entry]:
    """Members that can stand together, in any order, folders named or not."""
    found: list[Entry] = []
    taken: dict[str, str] = {"": "folder"}
    for _ in range(draw(st.integers(0, 8))):
        folder = draw(st.sampled_from([path for path, kind in taken.items() if kind == "folder"]))
        path = "/".join(filter(None, [folder, *draw(st.lists(names, min_size=1, max_size=3))]))
        steps = [path[: each.start()] for each in re.finditer("/", path)]
        if path in taken or any(taken.get(step, "folder") != "folder" for step in steps):
            continue
        files = [entry for entry in found if isinstance(entry, File)]
        kinds = ["file", "file", "folder", "link", *(["twin"] if twins and files else [])]
        kind = draw(st.sampled_from(kinds))
        taken |= dict.fromkeys(steps, "folder") | {path: kind}
        if kind == "file":
            found.append(File(path, draw(CONTENTS), draw(st.sampled_from([0o644, 0o755, 0o400]))))
        elif kind == "folder":
            found.append(Folder(path))
        elif kind == "twin":
            earlier = draw(st.sampled_from(files))
            found.append(Twin(path, earlier.name, earlier.mode))
        else:
            target = draw(st.sampled_from([each for each in taken if each] + ["not-there"]))
            found.append(Link(path, os.path.relpath(target, os.path.dirname(path) or ".")))
    return found


def as_tarfile_does(data: bytes, folder: str) -> None:
    """Unpack with the filter whose rules are ours (PEP 706)."""
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        archive.extractall(folder, filter="data")


def as_zipfile_does(data: bytes, folder: str) -> None:
    """Unpack; zipfile leaves out modes and links, which are seen to here."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            path = archive.extract(member, folder)
            mode = member.external_attr >> 16
            if mode & 0o170000 == LINK & 0o170000:
                target = Path(path).read_bytes()
                os.unlink(path)
                os.symlink(target, os.fsencode(path))
            elif not member.is_dir():
                os.chmod(path, mode & 0o777)


def assert_same(room: Room, tree: Tree, other: str) -> None:
    """A tree is what another program made, and its list tells it as it is."""
    twin = Tree("", 0, "", "", other, 0, 0)
    found = walked(tree)
    assert found == walked(twin)
    assert folders_of(tree) == folders_of(twin)
    members = listed(room, tree)
    assert {each.path: each for each in members if each.mode != FOLDER} == found
    assert len({each.path for each in members}) == len(members)
    folders = {each.path for each in members if each.mode == FOLDER}
    full = {os.path.dirname(path) for path in [*found, *folders_of(tree)]}
    assert folders_of(tree) - full <= folders <= folders_of(tree)
    assert (tree.files, tree.bytes) == _sums(found)
    assert room.store.trees.damaged(tree) is None


def _sums(found: dict[str, Member]) -> tuple[int, int]:
    files = [each for each in found.values() if each.is_file]
    return len(files), sum(each.size for each in files)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=trees(RAW_NAMES, twins=True),
    form=st.sampled_from(sorted(FORMATS)),
    kind=st.sampled_from(TARS),
)
def test_any_tree_comes_out_of_a_tar(
    room: Room, entries: list[Entry], form: str, kind: str
) -> None:
    try:
        tar = tar_of(*entries, format=FORMATS[form])
    except ValueError:
        assume(False)  # a name that is too long for this form
    tree = room.unpack(wrapped(kind, tar), "tar", FREE)
    with tempfile.TemporaryDirectory() as other:
        as_tarfile_does(tar, other)
        assert_same(room, tree, other)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=trees(NAMES, twins=False),
    method=st.sampled_from(
        [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    ),
    zip64=st.booleans(),
    piped=st.booleans(),
)
def test_any_tree_comes_out_of_a_zip(
    room: Room, entries: list[Entry], method: int, zip64: bool, piped: bool
) -> None:
    data = zip_of(*entries, method=method, zip64=zip64, piped=piped)
    tree = room.unpack(data, "zip", FREE)
    with tempfile.TemporaryDirectory() as other:
        as_zipfile_does(data, other)
        assert_same(room, tree, other)


def _noise(size: int) -> bytes:
    """Bytes that are not much to compress, all the same."""
    return (content(1 << 16) * (size // (1 << 16) + 1))[:size]


@pytest.mark.parametrize("kind", ALL)
def test_large_members_come_out_right(room: Room, kind: str) -> None:
    """Those that are handed over in pieces, and those that just are not."""
    sizes = [2 << 20, (2 << 20) + 1, (4 << 20) + 1, 0, 1]
    files = {f"{number}": (b"%d" % number) * size for number, size in enumerate(sizes)}
    if "bz" not in kind:  # for which it takes seconds
        files["noise"] = _noise((4 << 20) + 5)
    data = packed(kind, *(File(name, plain) for name, plain in files.items()))
    tree = room.unpack(data, recipe_of(kind), FREE)
    assert contents(tree) == files
    assert {each.path: each for each in listed(room, tree)} == walked(tree)


def test_what_inflates_to_whole_buffers_comes_out_right(room: Room) -> None:
    """Of few bytes much is made: all of them may be read before all of it has come out."""
    sizes = [(4 << 20) + more for more in (1, 1 << 20, (1 << 20) + 1)]
    files = {str(size): bytes(size) for size in sizes}
    data = packed("zip-deflated", *(File(name, plain) for name, plain in files.items()))
    assert contents(room.unpack(data, "zip", FREE)) == files


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "zip-deflated"])
def test_many_members_come_out_right(room: Room, kind: str) -> None:
    files = {f"{number % 7}/{number}": b"%d" % number for number in range(600)}
    data = packed(kind, *(File(name, plain) for name, plain in files.items()))
    tree = room.unpack(data, recipe_of(kind), FREE)
    assert contents(tree) == files
    assert {each.path: each for each in listed(room, tree)} == walked(tree)


@pytest.mark.parametrize("recipe", SINGLES)
@pytest.mark.parametrize("size", [0, 1, 100_000, (1 << 20) + 3])
def test_a_single_file_comes_out_right(room: Room, recipe: str, size: int) -> None:
    plain = _noise(size)
    tree = room.unpack(compressed(recipe, plain), recipe)
    assert contents(tree) == {"content": plain}
    assert {each.path: each for each in listed(room, tree)} == walked(tree)


@pytest.mark.parametrize("recipe", SINGLES)
def test_streams_one_after_the_other_are_one_file(room: Room, recipe: str) -> None:
    data = b"".join(compressed(recipe, bytes([number]) * 5000) for number in range(4))
    tree = room.unpack(data, recipe)
    assert contents(tree) == {"content": b"".join(bytes([each]) * 5000 for each in range(4))}


@pytest.mark.parametrize("kind", ALL)
def test_auto_goes_by_the_first_bytes(room: Room, kind: str) -> None:
    tree = room.unpack(packed(kind, File("a", b"x")), "auto")
    assert contents(tree) == {"a": b"x"}


def test_a_tar_may_be_as_old_as_tar(room: Room) -> None:
    """Version 7: no magic, folders by a slash at the end of the name, contiguous files."""
    plain = tar_of(Folder("d"), File("d/a", b"x", 0o755), format=tarfile.USTAR_FORMAT)
    blocks = [plain[at : at + 512] for at in range(0, len(plain), 512)]
    old = [_without_magic(block) if block[257:262] == b"ustar" else block for block in blocks]
    tree = room.unpack(b"".join(old), "tar")
    assert contents(tree) == {"d/a": b"x"}
    assert [each.mode for each in listed(room, tree)] == [FOLDER, PROGRAM]


def _without_magic(block: bytes) -> bytes:
    kind = {b"5": b"\0", b"0": b"7"}[block[156:157]]
    bare = block[:148] + b" " * 8 + kind + block[157:257] + bytes(255)
    return bare[:148] + b"%06o\0 " % sum(bare) + bare[156:]


def test_a_zip_of_dos_knows_no_modes(room: Room) -> None:
    data = zip_of(File("a", b"x", 0o777), File("d\\b", b"y"))
    dos = data.replace(b"PK\1\2\x14\3", b"PK\1\2\x14\0")
    assert dos != data
    tree = room.unpack(dos, "zip")
    assert contents(tree) == {"a": b"x", "d/b": b"y"}
    assert not os.stat(f"{tree.path}/a").st_mode & 0o111
