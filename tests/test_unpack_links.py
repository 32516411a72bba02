"""Links in archives: none leads out of its tree, whatever others it passes; none is followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dscache.errors import IntegrityError, UnsafeError
from dscache.unpack.rules import Limits
from tests.archives import (
    TARS,
    USUAL,
    ZIPS,
    Entry,
    File,
    Folder,
    Link,
    RawZip,
    Twin,
    packed,
    recipe_of,
    tar_of,
    wrapped,
)
from tests.rooms import FREE, Room, assert_inside, contents, listed, room

__all__ = ["room"]

OUT = [
    "..",
    "../x",
    "../../x",
    "../../../../victim",
    "../../../../prey",
    "../../../../../../../../../../etc/passwd",
    "a/../..",
    "a/../../x",
    "a/b/../../../x",
    "./../x",
    "/",
    "//",
    "/etc",
    "/etc/passwd",
    "///x",
    "/proc/self/cwd",
    "C:/x",
    "C:\\x",
    "\\x",
    "\\\\host\\share",
    "..\\..\\x",
    "a\\..\\..\\x",
    "../a/../../x",
]
#: Targets that stay inside, seen from `d/l`, and what the link holds then.
INSIDE = {
    "x": "x",
    "./x": "x",
    "x/../y": "y",
    "../x": "../x",
    "..": "..",
    ".": ".",
    "../d/x": "../d/x",
    "nothing/there": "nothing/there",
    "a//b/": "a/b",
    "l": "l",  # itself
}


@pytest.mark.parametrize("kind", USUAL)
def test_no_link_leads_out(room: Room, kind: str) -> None:
    for target in [*OUT, str(room.victim), str(room.prey)]:
        error = room.refused(UnsafeError, packed(kind, Link("l", target)), recipe_of(kind))
        assert (error.code, error.facts["member"]) == (7, "l"), target
        assert repr(target) in str(error)
    for depth in range(1, 6):
        name = "d/" * depth + "l"
        data = packed(kind, Folder("d"), Link(name, "../" * (depth + 1) + "x"))
        assert room.refused(UnsafeError, data, recipe_of(kind)).facts["member"] == name


@pytest.mark.parametrize("kind", USUAL)
def test_a_link_without_a_target_is_refused(room: Room, kind: str) -> None:
    error = room.refused(UnsafeError, packed(kind, Link("l", "")), recipe_of(kind))
    assert error.facts["member"] == "l"


@pytest.mark.parametrize("kind", USUAL)
def test_a_link_to_a_name_with_a_nul_is_refused(room: Room, kind: str) -> None:
    if kind in ZIPS:
        archives = [packed(kind, Link("l", "a\0b"))]
    else:
        pax = {"linkpath": "a\0b"}
        linking = Link("l", "x"), Twin("l", "a")
        archives = [wrapped(kind, tar_of(each, pax=pax)) for each in linking]
    for data in archives:
        assert room.refused(UnsafeError, data, recipe_of(kind)).facts["member"] == "l"


@pytest.mark.parametrize("kind", USUAL)
def test_links_that_stay_inside_stand(room: Room, kind: str) -> None:
    entries: list[Entry] = [File("x", b"x"), File("d/x", b"d/x")]
    for number, target in enumerate(INSIDE):
        entries.append(Link(f"d/{number}" if target != "l" else "d/l", target))
    tree = room.unpack(packed(kind, *entries), recipe_of(kind))
    links = {each.path: each.target for each in listed(room, tree) if each.target}
    assert sorted(links.values()) == sorted(INSIDE.values())
    for path, target in links.items():
        assert os.readlink(f"{tree.path}/{path}") == target
    assert_inside(Path(tree.path))


@pytest.mark.parametrize("kind", USUAL)
def test_a_long_target_is_refused_as_a_name_is(room: Room, kind: str) -> None:
    target = "/".join(["x" * 100] * 50)
    data = packed(kind, Link("l", target))
    expected = UnsafeError if kind in TARS else IntegrityError  # never so long in a zip
    assert "'l'" in str(room.refused(expected, data, recipe_of(kind)))


#: Archives that write through a link which an earlier member has made.
THROUGH: list[tuple[Entry, ...]] = [
    (Folder("d"), Link("l", "d"), File("l/x", b"x")),
    (Folder("d"), Link("l", "d"), Folder("l/x")),
    (Folder("d"), Link("l", "d"), Folder("l")),
    (Folder("d"), Link("l", "d"), Link("l/x", "y")),
    (Folder("d/e"), Link("l", "d"), File("l/e/x", b"x")),
    (File("t", b"t"), Link("l", "t"), File("l", b"new")),
    (Link("l", "not-there"), File("l", b"new")),
    (Folder("d"), Link("a", "d"), Link("b", "a"), Link("c", "b"), File("c/x", b"x")),
    (Folder("d"), Link("d", "x")),
    (Folder("d"), File("d/f"), Link("d", "e"), File("d/g")),
    (Link("l", "."), File("l/l/l/x")),
    (Link("l", "l"), File("l/x")),
    (File("t"), Link("l", "t"), File("l/x")),
]


@pytest.mark.parametrize("kind", USUAL)
def test_nothing_is_written_through_a_link(room: Room, kind: str) -> None:
    for entries in THROUGH:
        error = room.refused(UnsafeError, packed(kind, *entries), recipe_of(kind))
        assert error.facts["member"][0] in "lcd", entries


@pytest.mark.parametrize("kind", USUAL)
def test_nothing_is_written_through_a_link_that_comes_later(room: Room, kind: str) -> None:
    room.refused(UnsafeError, packed(kind, File("l/x"), Link("l", "d")), recipe_of(kind))


def climbing(levels: int) -> list[Entry]:
    """Links that each look as if they led inside, and that lead out when they are followed."""
    folders = "/".join("abcdefgh"[:levels])
    return [
        Folder(folders),
        Link(f"{folders}/up", "../" * levels + "."),
        Link("out", f"{folders}/up/.."),
    ]


#: CVE-2025-4517 and its kin: targets that are judged by what they resolve to, not by what is made.
TRICKS: list[list[Entry]] = [
    climbing(1),
    climbing(3),
    [Folder("a/b/c"), Link("a/b/c/s1", "../../.."), Link("out", "a/b/c/s1/..")],
    [Folder("a/b/c"), Link("a/b/c/s1", "../../.."), Link("out", "a/b/c/s1/../victim")],
    [Folder("a"), Link("a/here", "."), Link("out", "a/here/../../x")],
    [Folder("a"), Link("s", "a/"), Link("out", "s/../../x")],
    [Link("a", "."), Link("out", "a/../..")],
    [Link("out", "y/../.."), Folder("y")],
]
_INSIDE_AFTER_ALL = 5  # so many of them: their targets are normalised, and then lead inside


@pytest.mark.parametrize("kind", USUAL)
def test_links_do_not_climb_by_the_help_of_others(room: Room, kind: str) -> None:
    for number, entries in enumerate(TRICKS):
        data = packed(kind, *entries, File("out/pwned", b"x"))
        assert room.refused(UnsafeError, data, recipe_of(kind)).facts["member"].startswith("out")
        if number >= _INSIDE_AFTER_ALL:
            room.refused(UnsafeError, packed(kind, *entries), recipe_of(kind))
    for entries in TRICKS[:_INSIDE_AFTER_ALL]:
        assert room.survives(packed(kind, *entries), recipe_of(kind))


@pytest.mark.parametrize("kind", USUAL)
def test_a_chain_longer_than_a_path_leads_nowhere_else(room: Room, kind: str) -> None:
    """CVE-2025-4517: realpath gives up behind 4096 bytes, and what it gave up on was believed."""
    step, path = "d" * 247, ""
    entries: list[Entry] = []
    for letter in "abcdefghijklmnop":
        entries += [Folder(f"{path}{step}"), Link(f"{path}{letter}", step)]
        path += f"{letter}/"
    entries += [Link(f"{path}{'l' * 254}", "../" * 16), Link("escape", f"{path}{'l' * 254}/../x")]
    error = room.refused(UnsafeError, packed(kind, *entries), recipe_of(kind))
    assert error.facts["member"].startswith("a")  # below a link already

    chain: list[Entry] = [Folder("d"), Link("a0", "d")]
    chain += [Link(f"a{number}", f"a{number - 1}") for number in range(1, 60)]
    room.refused(UnsafeError, packed(kind, *chain, File("a59/x")), recipe_of(kind))
    assert room.survives(packed(kind, *chain), recipe_of(kind))


@pytest.mark.parametrize("kind", TARS)
def test_no_hard_link_leads_out(room: Room, kind: str) -> None:
    room.victim.with_name("x").write_bytes(b"x")
    for earlier in [
        "../../../../victim",
        "..",
        "../x",
        "a/../../x",
        "C:/x",
        "..\\x",
        str(room.victim),
        "/etc/passwd",
        "",
        ".",
        "/",
    ]:
        data = packed(kind, File("a", b"a"), Twin("t", earlier))
        error = room.refused(UnsafeError, data, recipe_of(kind))
        assert error.facts["member"] == "t", earlier
    assert room.victim.stat().st_nlink == 1


#: Hard links to what is no earlier file.
NO_FILE: list[tuple[Entry, ...]] = [
    (Twin("t", "not-there"),),
    (Twin("t", "later"), File("later", b"x")),
    (Folder("d"), Twin("t", "d")),
    (File("a"), Link("l", "a"), Twin("t", "l")),
    (Link("l", "not-there"), Twin("t", "l")),
    (Folder("d"), File("d/a"), Link("l", "d"), Twin("t", "l/a")),
    (File("a"), Twin("t", "a/b")),
    (Twin("t", "t"),),
]


@pytest.mark.parametrize("kind", TARS)
def test_a_hard_link_is_one_to_an_earlier_file(room: Room, kind: str) -> None:
    for entries in NO_FILE:
        error = room.refused(UnsafeError, packed(kind, *entries), recipe_of(kind))
        assert error.facts["member"] == "t", entries


def test_a_hard_link_is_the_same_file(room: Room) -> None:
    entries = File("a/b", b"x", 0o755), Twin("c", "a/b"), Twin("/d/e", "/a/./b"), Twin("f", "c")
    tree = room.unpack(tar_of(*entries), "tar")
    assert contents(tree) == dict.fromkeys(["a/b", "c", "d/e", "f"], b"x")
    assert os.stat(f"{tree.path}/c").st_nlink == 4
    assert len({each.xxh3_128 for each in listed(room, tree)}) == 1
    assert {each.mode for each in listed(room, tree)} == {0o100555}


def test_many_names_of_one_file_count_as_many_files(room: Room) -> None:
    """Views may have to copy them, and each is hashed."""
    data = tar_of(File("a", bytes(1 << 20)), *(Twin(f"t{number}", "a") for number in range(9)))
    limits = Limits(0, 9 << 20, 0)
    error = room.refused(UnsafeError, data, "tar", limits)
    assert error.facts["member"] == "t8"
    assert len(contents(room.unpack(data, "tar", FREE))) == 10


@pytest.mark.parametrize("kind", ZIPS)
def test_a_link_in_a_zip_may_not_be_long(room: Room, kind: str) -> None:
    room.refused(IntegrityError, packed(kind, Link("l", "x/" * 2500)), "zip")


def test_a_link_in_a_zip_cannot_be_a_bomb(room: Room) -> None:
    made = RawZip()
    at = made.local(b"l", bytes(100), 8)
    made.central(b"l", at, (0xFFFFFF0, 10), method=8, mode=0o120777)
    room.refused(UnsafeError, made.bytes(), "zip")  # overlaps what follows
    made = RawZip()
    made.add(b"l", b"x" * 10, b"x" * 10, 0, 9)
    room.refused(IntegrityError, made.bytes(), "zip")
