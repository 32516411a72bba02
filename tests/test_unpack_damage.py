"""Damaged archives: whatever is wrong with one, the error is ours, and nothing is left of it."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dscache.errors import IntegrityError, InvalidFile, UnsafeError
from tests.archives import (
    ALL,
    END,
    SINGLES,
    TARS,
    USUAL,
    ZIPS,
    Entry,
    File,
    Folder,
    Link,
    RawZip,
    Twin,
    compressed,
    packed,
    recipe_of,
    zip_of,
)
from tests.making import content
from tests.rooms import Room, contents, room

__all__ = ["room"]

OURS = IntegrityError, InvalidFile, UnsafeError
FILES = {"a": b"text " * 100, "d/b": content(1500), "d/c": b""}
ENTRIES: list[Entry] = [
    Folder("d"),
    *(File(name, data) for name, data in FILES.items()),
    Link("l", "d/b"),
]


def archive(kind: str) -> bytes:
    """A small archive with one of each."""
    twins = [Twin("t", "a")] if kind in TARS else []
    return packed(kind, *ENTRIES, *twins)


@pytest.mark.parametrize("kind", ALL)
def test_a_truncated_archive_is_damaged(room: Room, kind: str) -> None:
    data = archive(kind)
    ends = {*range(0, 40, 3), *range(40, len(data), max(1, len(data) // 20)), len(data) - 1}
    for end in sorted(ends):
        found = room.tried(data[:end], recipe_of(kind), *OURS)
        if found is not None:  # between two members, or where the tar has ended before
            assert kind in TARS
            assert found.items() <= {**FILES, "t": FILES["a"]}.items()


@pytest.mark.parametrize("recipe", SINGLES)
def test_a_truncated_file_is_damaged(room: Room, recipe: str) -> None:
    for plain in (content(5000), b"", bytes(100_000)):
        data = compressed(recipe, plain)
        for end in {0, 1, 3, 9, *range(10, len(data), 797), len(data) - 4, len(data) - 1}:
            if end < len(data):
                room.refused(IntegrityError, data[:end], recipe)


@pytest.mark.parametrize("recipe", SINGLES)
def test_a_flipped_bit_is_damage(room: Room, recipe: str) -> None:
    plain = content(2000)
    data = compressed(recipe, plain)
    for at in range(0, len(data), 29):
        flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        found = room.tried(flipped, recipe, *OURS)
        # Only gzip and zstd have bytes without a sum: of the time, and the frame's header.
        assert found is None or list(found.values()) == [plain] or recipe == "zstd"


@pytest.mark.parametrize("kind", ZIPS)
def test_a_sum_that_is_wrong_is_damage(room: Room, kind: str) -> None:
    plain = content(300)
    data = packed(kind, File("a", plain))
    wrong = data.replace(zlib.crc32(plain).to_bytes(4, "little"), b"\0\0\0\1")
    assert wrong != data
    error = room.refused(IntegrityError, wrong, "zip")
    assert (error.code, "'a'" in str(error)) == (5, True)


@pytest.mark.parametrize("kind", ALL)
def test_what_comes_after_the_end_does_no_harm(room: Room, kind: str) -> None:
    for more in (b"\0", bytes(600), b"\n", content(100), b"PK\5\6", b"PK\3\4" * 10):
        found = room.tried(archive(kind) + more, recipe_of(kind), *OURS)
        assert found is None or found.items() >= FILES.items()


@pytest.mark.parametrize("recipe", ["tar", "zip", "auto", *SINGLES])
def test_an_empty_file_is_no_archive(room: Room, recipe: str) -> None:
    assert not room.survives(b"", recipe, IntegrityError, InvalidFile)


@pytest.mark.parametrize("kind", USUAL)
def test_an_archive_of_nothing_is_an_empty_tree(room: Room, kind: str) -> None:
    assert contents(room.unpack(packed(kind), recipe_of(kind))) == {}


@pytest.mark.parametrize("recipe", ["tar", "zip", "auto", *SINGLES])
def test_another_format_than_the_recipe_is_an_error(room: Room, recipe: str) -> None:
    others = [content(5000), b"<!DOCTYPE html><html>" * 100, b"\0" * 100, b"x"]
    others += [archive(kind) for kind in ALL if recipe != "auto" and recipe_of(kind) != recipe]
    others += [compressed(each, content(900)) for each in SINGLES if each != recipe]
    for data in others:
        found = room.tried(data, recipe, *OURS)
        # A compressed tar is also a file of that compression.
        assert found is None or (recipe in SINGLES and list(found) == ["content"])


@pytest.mark.parametrize("recipe", ["tar", "zip", "auto", *SINGLES])
@pytest.mark.parametrize(
    ("magic", "kind"),
    [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07\0", "rar"), (b"Rar!\x1a\x07\1\0", "rar")],
)
def test_a_format_that_no_recipe_unpacks_is_named(
    room: Room, recipe: str, magic: bytes, kind: str
) -> None:
    error = room.refused(InvalidFile, magic + content(600), recipe)
    assert (error.code, kind in str(error), kind in error.hint) == (8, True, True)


# --- zip: what its headers may say


def raw(**keys: int) -> RawZip:
    """An archive of the file `a`; `keys` are for its row of the directory."""
    made = RawZip()
    at = made.local(b"a", b"plain")
    made.central(b"a", at, (5, 5), zlib.crc32(b"plain"), **keys)
    return made


@pytest.mark.parametrize("flags", [0x1, 0x41, 0x2041])
def test_an_encrypted_member_is_named(room: Room, flags: int) -> None:
    for method in (0, 8, 99):
        error = room.refused(InvalidFile, raw(flags=flags, method=method).bytes(), "zip")
        assert (error.facts["member"], "password" in error.hint) == ("a", True)


@pytest.mark.parametrize("method", [1, 6, 9, 10, 18, 19, 95, 96, 97, 98, 99, 65535])
def test_a_compression_that_nobody_knows_is_named(room: Room, method: int) -> None:
    error = room.refused(InvalidFile, raw(method=method).bytes(), "zip")
    assert error.facts["member"] == "a"
    made = raw(method=method, mode=0o120777)
    assert room.refused(InvalidFile, made.bytes(), "zip").facts["member"] == "a"


def test_a_zip_of_the_future_is_an_error(room: Room) -> None:
    error = room.refused(InvalidFile, raw(version=99).bytes(), "zip")
    assert "9.9" in str(error)


def test_the_two_headers_of_a_member_agree(room: Room) -> None:
    assert contents(room.unpack(raw().bytes(), "zip")) == {"a": b"plain"}
    for name in (b"b", b"a\0", b"../../x", b"", b"aa", b"A"):
        made = RawZip()
        at = made.local(name, b"plain" + bytes(20))
        made.central(b"a", at, (5, 5), zlib.crc32(b"plain"))
        made.body += bytes(20)
        room.refused(IntegrityError, made.bytes(), "zip")


def test_a_name_that_is_no_utf8_is_damage(room: Room) -> None:
    made = RawZip()
    at = made.local(b"\xff\xfe", b"plain")
    made.central(b"\xff\xfe", at, (5, 5), zlib.crc32(b"plain"), flags=0x800)
    room.refused(IntegrityError, made.bytes(), "zip")


def test_a_member_beyond_the_end_is_refused(room: Room) -> None:
    for at in (1, 30, 40, 1000, 2**31, 2**32 - 2):
        made = RawZip()
        made.local(b"a", b"plain")
        made.central(b"a", at, (5, 5), zlib.crc32(b"plain"))
        assert not room.survives(made.bytes(), "zip", *OURS)
    for size in (6, 5000, 2**32 - 2):
        made = RawZip()
        made.local(b"a", b"plain")
        made.central(b"a", 0, (size, size), zlib.crc32(b"plain"))
        assert not room.survives(made.bytes(), "zip", *OURS)


def test_a_directory_that_is_elsewhere_is_refused(room: Room) -> None:
    for offset in (-30, -1, 1, 1000, 2**31):
        assert not room.survives(raw().bytes(offset=offset), "zip", *OURS)


def test_bytes_before_a_zip_are_left_out(room: Room) -> None:
    """As those of a program that unpacks itself."""
    assert contents(room.unpack(b"#!/bin/sh\n" * 50 + raw().bytes(), "zip")) == {"a": b"plain"}
    assert contents(room.unpack(raw().bytes(comment=b"PK\1\2 and more"), "zip")) == {"a": b"plain"}


@pytest.mark.parametrize("count", [0, 2, 65535])
def test_a_count_that_is_wrong_decides_nothing(room: Room, count: int) -> None:
    made = raw()
    made.count = count
    assert room.tried(made.bytes(), "zip", *OURS) in (None, {"a": b"plain"})


SMALL = {kind: archive(kind) for kind in ALL} | {
    "zip-piped": zip_of(*ENTRIES, method=8, piped=True),
    "zip-64": zip_of(*ENTRIES, zip64=True),
    "tar.gz-with-more": compressed("gzip", archive("tar") + END * 20) + END,
}


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(SMALL)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    near_the_end=st.booleans(),
)
@example(kind="tar", changes=[], near_the_end=False)
def test_random_damage_is_told_as_damage(
    room: Room, kind: str, changes: list[tuple[float, int]], near_the_end: bool
) -> None:
    data = bytearray(SMALL[kind])
    # The directory of a zip stands there, and few bytes decide much.
    first = max(0, len(data) - 400) if near_the_end else 0
    for where, value in changes:
        data[first + int(where * (len(data) - first))] = value
    room.survives(bytes(data), recipe_of(kind), *OURS)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), blocks=st.integers(1, 4))
def test_random_headers_of_tar_are_told_as_damage(
    room: Room, data: st.DataObject, blocks: int
) -> None:
    made = bytearray(archive("tar"))
    for _ in range(blocks):
        at = 512 * data.draw(st.integers(0, 6))
        start = at + data.draw(st.sampled_from([0, 100, 124, 156, 157, 257, 345, 386, 482]))
        value = data.draw(st.binary(min_size=1, max_size=12))
        made[start : start + len(value)] = value
        made[at + 148 : at + 156] = b" " * 8
        made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])
    room.survives(bytes(made), "tar", *OURS)
