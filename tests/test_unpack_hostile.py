"""Archives that are meant to cost: each is given up at its limit; disk and memory are spared."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from dscache import disk, filesystem
from dscache.errors import IntegrityError, UnsafeError
from dscache.unpack.rules import Limits
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
    compressed,
    deflated,
    local_header,
    packed,
    padded,
    pax_block,
    recipe_of,
    tar_header,
    tar_of,
    wrapped,
    zip_of,
    zstd_of,
)
from tests.rooms import FREE, LIMITS, Room, contents, room

__all__ = ["room"]

MIB = 1 << 20
ZEROS = bytes(40 * MIB)
TIGHT = Limits(max_members=0, max_bytes=0, max_ratio=100)
_MEMORY = 32 * MIB


class Written:
    """Bytes that were written into drafts, but for their lists."""

    def __init__(self) -> None:
        self.bytes = 0


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """Counts from now on."""
    found, write = Written(), filesystem.write

    def counted(fd: int, chunks: Sequence[bytes | memoryview], offset: int) -> int:
        found.bytes += sum(map(len, chunks))
        return write(fd, chunks, offset)

    monkeypatch.setattr(filesystem, "write", counted)
    return found


@contextmanager
def little_memory() -> Iterator[None]:
    """What is held at once is much less than what the archive would make."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < _MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ALL)
def test_the_limits_are_kept_to_the_byte_and_the_member(room: Room, kind: str) -> None:
    entries: list[Entry] = [File("a", bytes(60)), Folder("b"), Link("c", "a"), File("d", bytes(40))]
    data, recipe = packed(kind, *entries), recipe_of(kind)
    total = 101 if kind in ZIPS else 100  # in zip what a link holds are bytes of a file, too
    error = room.refused(UnsafeError, data, recipe, Limits(0, total - 1, 0))
    assert (error.facts["member"], error.facts["limit"]) == ("d", total - 1)
    assert "max_bytes" in error.hint
    error = room.refused(UnsafeError, data, recipe, Limits(3, 0, 0))
    assert (error.facts["member"], "max_members" in error.hint) == ("d", True)
    assert contents(room.unpack(data, recipe, Limits(4, total, 0))) == {
        "a": bytes(60),
        "d": bytes(40),
    }


@pytest.mark.parametrize("recipe", SINGLES)
def test_the_limits_of_a_single_file_are_kept_to_the_byte(room: Room, recipe: str) -> None:
    data = compressed(recipe, bytes(100))
    error = room.refused(UnsafeError, data, recipe, Limits(1, 99, 0))
    assert (error.facts["limit"], "max_bytes" in error.hint) == (99, True)
    assert list(contents(room.unpack(data, recipe, Limits(1, 100, 0))).values()) == [bytes(100)]


def test_the_ratio_is_that_to_the_archive(room: Room) -> None:
    data = compressed("zstd", bytes(2 * MIB))
    most = len(data) * 1000
    assert most < MIB  # up to which anything goes
    error = room.refused(UnsafeError, data, "zstd")
    assert (error.facts["limit"], "max_ratio" in error.hint) == (MIB, True)
    room.unpack(compressed("zstd", bytes(MIB)), "zstd")
    room.unpack(data, "zstd", FREE)


@pytest.mark.parametrize("recipe", SINGLES)
def test_a_bomb_is_given_up_at_the_ratio(room: Room, recipe: str, written: Written) -> None:
    data = compressed(recipe, ZEROS)
    written.bytes = 0
    with little_memory():
        error = room.refused(UnsafeError, data, recipe, TIGHT)
    assert "max_ratio" in error.hint
    assert written.bytes <= error.facts["limit"] + len(data) + 10_000


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in ("tar", "zip")])
def test_a_member_that_is_a_bomb_is_not_begun(room: Room, kind: str, written: Written) -> None:
    data = packed(kind, File("kept", b"x" * 1000), File("bomb", ZEROS))
    written.bytes = 0
    with little_memory():
        error = room.refused(UnsafeError, data, recipe_of(kind), TIGHT)
    assert error.facts["member"] == "bomb"
    assert written.bytes < len(data) + 10_000


@pytest.mark.parametrize("kind", USUAL)
def test_archives_in_archives_stay_packed(room: Room, kind: str) -> None:
    """42.zip, and those that hold themselves: one level is unpacked, never another."""
    inner = packed(kind, File("zeros", bytes(1000)))
    for level in range(3):
        outer = [File(f"{level}-{number}.{kind}", inner) for number in range(3)]
        inner = packed(kind, *outer)
    tree = room.unpack(inner, recipe_of(kind), FREE)
    assert contents(tree) == {each.name: each.data for each in outer}


@pytest.mark.parametrize("recipe", SINGLES)
def test_of_several_compressions_one_is_taken_off(room: Room, recipe: str) -> None:
    inner = compressed(recipe, compressed(recipe, b"x"))
    tree = room.unpack(compressed(recipe, inner), recipe)
    assert list(contents(tree).values()) == [inner]
    room.refused(IntegrityError, compressed(recipe, inner), "tar")


# --- zip: what its two headers say


def quoted_overlap(count: int) -> bytes:
    """Each member's data goes on through the headers and the data of all that follow.

    https://www.bamsoftware.com/hacks/zipbomb/
    """
    made, plain, body = RawZip(), bytes(10 * MIB), deflated(bytes(10 * MIB))
    rows = []
    for number in reversed(range(count)):
        header = local_header(b"%d" % number, 8)
        rows.append((b"%d" % number, len(body), len(plain), zlib.crc32(plain)))
        quote = b"\0" + struct.pack("<HH", len(header), len(header) ^ 0xFFFF)
        body, plain = quote + header + body, header + plain
    made.body = body[5:]
    for name, length, size, crc in reversed(rows):
        at = len(made.body) - length - len(local_header(name, 8))
        made.central(name, at, (length, size), crc, method=8)
    return made.bytes()


def full_overlap(count: int) -> bytes:
    """All members are the same bytes."""
    made, plain = RawZip(), bytes(10 * MIB)
    body = deflated(plain)
    at = made.local(b"0", body, 8)
    for number in range(count):
        made.central(b"%d" % number, at, (len(body), len(plain)), zlib.crc32(plain), method=8)
    return made.bytes()


def extra_overlap(count: int) -> bytes:
    """The extra field of each member holds the headers of all that follow."""
    made, plain = RawZip(), bytes(10 * MIB)
    body, header = deflated(plain), len(local_header(b"0"))
    for number in range(count):
        rest = header * (count - number - 1)
        made.body += local_header(b"%d" % number, 8, extra_length=rest)
        made.central(
            b"%d" % number, number * header, (len(body), len(plain)), zlib.crc32(plain), method=8
        )
    made.body += body
    return made.bytes()


def inflated(data: bytes, start: int) -> bytes:
    """The member whose header is at `start`, whatever else shares its bytes.

    zipfile itself gives it in some versions, and in others refuses.
    """
    name, extra = struct.unpack_from("<HH", data, start + 26)
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start + 30 + name + extra :])


@pytest.mark.parametrize("make", [quoted_overlap, full_overlap, extra_overlap])
def test_members_that_share_bytes_are_refused(
    room: Room, make: Callable[[int], bytes], written: Written
) -> None:
    data = make(9)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first = archive.getinfo("0")
    plain = inflated(data, first.header_offset)
    assert (len(plain), zlib.crc32(plain)) == (first.file_size, first.CRC)  # the bomb works
    assert len(plain) >= 10 * MIB
    written.bytes = 0
    error = room.refused(UnsafeError, data, "zip", FREE)
    assert error.facts["member"] in set("012345678")
    assert "overlaps" in str(error)
    assert written.bytes < len(data) + 1000


def lzma_of(data: bytes, window: int = 1 << 20) -> bytes:
    """Bytes as method 14 has them."""
    chain = [{"id": lzma.FILTER_LZMA1, "preset": 0, "dict_size": 1 << 20}]
    raw = lzma.compress(data, lzma.FORMAT_RAW, filters=chain)
    return struct.pack("<2sHBL", b"\x09\x04", 5, (2 * 5 + 0) * 9 + 3, window) + raw


METHODS: dict[int, Callable[[bytes], bytes]] = {
    zipfile.ZIP_STORED: bytes,
    zipfile.ZIP_DEFLATED: deflated,
    zipfile.ZIP_BZIP2: lambda data: compressed("bzip2", data),
    zipfile.ZIP_LZMA: lzma_of,
}


@pytest.mark.parametrize("method", METHODS)
def test_sizes_that_are_said_wrong_are_found_out(room: Room, method: int) -> None:
    plain = b"some text, and some more " * 10
    for size in (0, 1, len(plain) - 1, len(plain) + 1, 5 * MIB, 2**32 - 2):
        made = RawZip()
        made.add(b"a", plain, METHODS[method](plain), method, size)
        room.refused(IntegrityError, made.bytes(), "zip", FREE)
    made = RawZip()
    made.add(b"a", plain, METHODS[method](plain), method, len(plain))
    assert contents(room.unpack(made.bytes(), "zip")) == {"a": plain}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [10, 5 * MIB])
def test_no_more_comes_out_than_was_said(
    room: Room, method: int, size: int, written: Written
) -> None:
    made = RawZip()
    made.add(b"a", ZEROS, METHODS[method](ZEROS), method, size)
    data = made.bytes()
    written.bytes = 0
    with little_memory() if method else disk.storage_errors(""):
        room.refused(IntegrityError, data, "zip", FREE)
    assert written.bytes <= size + MIB + (len(data) + 10_000)


def test_a_window_larger_than_the_file_takes_no_memory(room: Room) -> None:
    made, plain = RawZip(), b"some text " * 100
    made.add(b"a", plain, lzma_of(plain, window=0xFFFFFFFF), zipfile.ZIP_LZMA, len(plain))
    with little_memory():
        assert contents(room.unpack(made.bytes(), "zip")) == {"a": plain}


def test_a_window_that_takes_gigabytes_is_refused(room: Room) -> None:
    with little_memory():
        room.refused(IntegrityError, zstd_of(b"x" * 1000, window_log=31), "zstd")


# --- tar: what its headers claim

_HUGE = 1 << 62


@pytest.mark.parametrize("kind", [b"0", b"7", b"x", b"g", b"L", b"K", b"V", b"Z"])
@pytest.mark.parametrize("size", [-1, -512, -(1 << 40), 1 << 33, _HUGE])
def test_a_size_that_cannot_be_is_refused(room: Room, kind: bytes, size: int) -> None:
    data = tar_header("a", size, kind) + bytes(2 * MIB)
    with little_memory():
        assert not room.survives(data, "tar", IntegrityError, UnsafeError)
        assert not room.survives(tar_of(File("b"))[:512] + data, "tar", IntegrityError, UnsafeError)


@pytest.mark.parametrize("size", ["-1", "-600", "1e9", "nan", "9" * 100, "9" * 5000, "", "0x10"])
def test_a_size_in_an_extended_header_is_no_less_doubted(room: Room, size: str) -> None:
    data = pax_block([("size", size)]) + tar_header("a", 3) + padded(b"abc") + END
    room.survives(data, "tar", IntegrityError, UnsafeError)
    for kind in TARS:
        room.survives(wrapped(kind, data), "tar", IntegrityError, UnsafeError)


@pytest.mark.parametrize(
    "records",
    [
        b"",
        b"0 path=x\n",
        b"1 path=x\n",
        b"-5 path=x\n",
        b"99999999 path=x\n",
        b"9" * 200 + b" path=x\n",
        b"9" * 5000 + b" path=x\n",
        b"12 path=x",
        b"path=x\n",
        b"10 path\n",
        b"\xff\xfe\0\0" * 100,
        b"20 SCHILY.xattr.user.a=\xff\xff\xff\n",
        b"30 hdrcharset=\xff\xff\n12 path=\xff\xff\n",
        b"21 hdrcharset=BINARY\n10 path=\xff\n",
        b"0" * (2 * MIB) + b" hdrcharset=x\n",
        b"1 1 1 1=" * 10_000,
        b"22 GNU.sparse.map=1,x\n",
        b"22 GNU.sparse.map=-1,5\n23 GNU.sparse.size=-99\n",
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
        b"26 GNU.sparse.realsize=-9\n",
    ],
    ids=lambda records: repr(records[:20]),
)
def test_an_extended_header_that_is_broken_breaks_nothing(room: Room, records: bytes) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE):
        header = tar_header("pax", len(records), kind) + padded(records)
        data = header + tar_header("a", 600) + padded(b"x" * 600) + END
        room.survives(data, "tar", IntegrityError, UnsafeError)


def test_a_chain_of_headers_ends_somewhere(room: Room) -> None:
    for kind, length in ((b"L", 0), (b"K", 0), (b"x", 0), (b"L", 512), (b"g", 512)):
        header = tar_header("h", length, kind) + bytes(length)
        room.refused(IntegrityError, header * 3000 + tar_header("a", 0) + END, "tar")


@pytest.mark.parametrize("count", [1, 1000])
def test_what_stays_until_the_end_stays_little(room: Room, count: int) -> None:
    made = b""
    for number in range(count):
        made += pax_block([(f"comment{number}", "x")], tarfile.XGLTYPE)
        made += tar_header(f"{number}", 0)
    if count == 1:  # as git archive writes it
        assert contents(room.unpack(made + END, "tar")) == {"0": b""}
    else:
        room.refused(IntegrityError, made + END, "tar")


def stuffed(number: int) -> bytes:
    """A member with a megabyte of attributes."""
    return pax_block([("comment", "x" * MIB)]) + tar_header(f"{number}", 0)


#: Tars that would be long to read, though they make nothing.
IDLE: dict[str, Callable[[], bytes]] = {
    "label": lambda: tar_header("label", len(ZEROS), b"V") + ZEROS,
    "sparse": lambda: tar_header("a", len(ZEROS), b"S") + ZEROS,
    "headers": lambda: b"".join(map(stuffed, range(8))),
}


@pytest.mark.parametrize("make", IDLE.values(), ids=list(IDLE))
def test_reading_what_makes_nothing_is_limited_too(
    room: Room, make: Callable[[], bytes], written: Written
) -> None:
    data = compressed("gzip", make() + tar_header("end", 0) + END)
    written.bytes = 0
    with little_memory():
        room.refused(UnsafeError, data, "tar", TIGHT)
    assert written.bytes <= len(data) + 10_000
    room.unpack(data, "tar", FREE)


def test_a_gzip_header_may_not_go_on_for_ever(room: Room) -> None:
    header = b"\x1f\x8b\x08\x08" + bytes(6)
    room.refused(IntegrityError, header + b"n" * (6 * MIB), "gzip")


def test_no_limits_mean_none(room: Room) -> None:
    data = zip_of(*(File(f"{number}", bytes(2 * MIB)) for number in range(3)), method=8)
    assert len(contents(room.unpack(data, "zip", FREE))) == 3
    assert LIMITS.max_ratio == 1000
