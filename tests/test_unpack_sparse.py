"""Sparse files in tar, in the four forms that GNU tar writes: holes cost nothing on the disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dscache import disk
from dscache.errors import IntegrityError, UnsafeError
from dscache.unpack.rules import Limits
from tests.archives import (
    END,
    File,
    padded,
    pax_block,
    tar_header,
    tar_of,
    wrapped,
)
from tests.making import content
from tests.rooms import FREE, LIMITS, Room, contents, listed, room, walked

__all__ = ["room"]

Runs = Sequence[tuple[int, int]]
MIB = 1 << 20


def number(value: int) -> bytes:
    """A field of an old header; negative and huge numbers are binary."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (
        b"\x80" + value.to_bytes(11, "big") if value > 0 else value.to_bytes(12, "big", signed=True)
    )


def old(runs: Runs, size: int, data: bytes) -> bytes:
    """Four runs stand in the header, 21 in each block that goes on."""
    fields = [number(offset) + number(count) for offset, count in runs]
    first = b"".join(fields[:4]).ljust(96, b"\0")
    rest = [fields[at : at + 21] for at in range(4, len(fields), 21)]
    gnu = bytes(41) + first + bytes([bool(rest)]) + number(size)
    blocks = []
    for left, each in zip(reversed(range(len(rest))), rest, strict=True):
        blocks.append(b"".join(each).ljust(504, b"\0") + bytes([bool(left)]) + bytes(7))
    return tar_header("a", len(data), b"S", gnu) + b"".join(blocks) + padded(data)


def pax_00(runs: Runs, size: int, data: bytes) -> bytes:
    """A record for each number, so that each key stands there many times."""
    records = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(runs)))]
    for offset, count in runs:
        records += [("GNU.sparse.offset", str(offset)), ("GNU.sparse.numbytes", str(count))]
    return pax_block(records) + tar_header("a", len(data)) + padded(data)


def pax_01(runs: Runs, size: int, data: bytes) -> bytes:
    """All numbers in one record."""
    numbers = ",".join(f"{offset},{count}" for offset, count in runs or [(size, 0)])
    records = [
        ("GNU.sparse.size", str(size)),
        ("GNU.sparse.numblocks", str(len(runs))),
        ("GNU.sparse.map", numbers),
        ("GNU.sparse.name", "a"),
    ]
    return pax_block(records) + tar_header("GNUSparseFile.1/a", len(data)) + padded(data)


def pax_10(runs: Runs, size: int, data: bytes) -> bytes:
    """The numbers stand before the data."""
    numbers = [len(runs), *(each for run in runs for each in run)]
    table = padded("".join(f"{each}\n" for each in numbers).encode())
    records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "a"),
        ("GNU.sparse.realsize", str(size)),
    ]
    header = tar_header("GNUSparseFile.1/a", len(table) + len(data))
    return pax_block(records) + header + table + padded(data)


Form = Callable[[Runs, int, bytes], bytes]
FORMS: tuple[Form, ...] = (old, pax_00, pax_01, pax_10)
forms = pytest.mark.parametrize("form", FORMS)


def spread(runs: Runs, size: int, data: bytes) -> bytes:
    """The file that such an archive means."""
    made, taken = bytearray(size), 0
    for offset, count in runs:
        made[offset : offset + count] = data[taken : taken + count]
        taken += count
    return bytes(made)


HONEST: list[tuple[list[tuple[int, int]], int]] = [
    ([], 0),
    ([], 5000),
    ([(0, 512)], 512),
    ([(0, 512), (4096, 100)], 5000),
    ([(4096, 512)], 4608),
    ([(512, 512), (5000, 0)], 5000),  # as GNU tar ends what ends with a hole
    ([(512 * at, 100) for at in range(1, 60)], 40_000),
    ([(MIB, 3 * MIB)], 5 * MIB),
]


@forms
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_an_honest_sparse_file_comes_out_right(room: Room, form: Form, kind: str) -> None:
    for number_of_case, (runs, size) in enumerate(HONEST):
        data = content(sum(count for _, count in runs), number_of_case)
        after = tar_of(File("after", b"x"))
        tree = room.unpack(wrapped(kind, form(runs, size, data) + after), "tar", FREE)
        assert contents(tree) == {"a": spread(runs, size, data), "after": b"x"}
        assert {each.path: each for each in listed(room, tree)} == walked(tree)


@forms
def test_holes_take_no_room(room: Room, form: Form) -> None:
    size = 256 * MIB
    tree = room.unpack(form([(size - 512, 512)], size, bytes(512)) + END, "tar", FREE)
    assert Path(tree.path, "a").stat().st_size == size
    assert disk.allocated(f"{tree.path}/a") < MIB
    tree = room.unpack(form([], size, b"") + END, "tar", FREE)
    assert Path(tree.path, "a").stat().st_size == size


@forms
def test_holes_count_as_bytes(room: Room, form: Form) -> None:
    """Whoever copies the file may have to write them."""
    for size in (16 * MIB, 1 << 40, 1 << 62, 1 << 70):
        data = form([(0, 512)], size, bytes(512)) + END
        for limits in (LIMITS, Limits(0, 16 * MIB - 1, 0)):
            error = room.refused(UnsafeError, data, "tar", limits)
            assert error.facts["member"] == "a"


#: Runs that cannot be, and what they would read or write if they were believed.
WRONG: list[tuple[list[tuple[int, int]], int]] = [
    ([(0, 512), (0, 512)], 1024),  # one over the other
    ([(512, 512), (0, 512)], 1024),  # backwards
    ([(0, 512), (511, 512)], 2000),
    ([(0, 2000)], 1000),  # longer than the file
    ([(900, 200)], 1000),
    ([(2000, 10)], 1000),
    ([(0, 4 * 512)], 4 * 512),  # longer than what is there
    ([(0, 1 << 40)], 1 << 40),
    ([(1 << 62, 1)], 5000),
]
NEGATIVE: list[tuple[list[tuple[int, int]], int]] = [
    ([(0, -1)], 1000),
    ([(1 << 40, -(1 << 40))], 1000),  # a hole that no size tells of
    ([(-512, 512)], 1000),
    ([(0, 512)], -1000),
    ([(-(1 << 62), 1 << 62)], 5000),
]


@forms
def test_runs_that_cannot_be_are_refused(room: Room, form: Form) -> None:
    for runs, size in WRONG:
        data = form(runs, size, bytes(1024)) + tar_header("after", 0) + END
        assert not room.survives(data, "tar", IntegrityError, UnsafeError), (runs, size)


@pytest.mark.parametrize("form", [old, pax_01, pax_10])
def test_negative_numbers_are_refused(room: Room, form: Form) -> None:
    for runs, size in NEGATIVE:
        data = form(runs, size, bytes(1024)) + tar_header("after", 0) + END
        assert not room.survives(data, "tar", IntegrityError, UnsafeError), (runs, size)


@pytest.mark.parametrize(("form", "count"), [(old, 180_000), (pax_01, 330_000), (pax_10, 330_000)])
def test_a_table_without_end_is_given_up(room: Room, form: Form, count: int) -> None:
    data = form([(10**9, 0)] * count, 10**9, b"") + END
    room.refused(IntegrityError, data, "tar", FREE)
    claimed = pax_10([], 5, b"").replace(b"0\n" + bytes(510), b"9" * 300 + b"\n" + bytes(211))
    room.refused(IntegrityError, claimed + END, "tar", FREE)


@pytest.mark.parametrize(
    "options", [["oldgnu"], ["posix", "0.0"], ["posix", "0.1"], ["posix", "1.0"]]
)
def test_what_gnu_tar_writes_is_understood(room: Room, options: list[str], tmp_path: Path) -> None:
    program = shutil.which("tar")
    if program is None or b"GNU tar" not in _said(program, "--version"):
        pytest.skip("there is no GNU tar")
    with open(tmp_path / "a", "wb") as file:
        for offset in range(0, 8 * MIB, MIB):
            file.seek(offset)
            file.write(content(5000, offset))
        file.truncate(9 * MIB)
    flags = [f"--format={options[0]}", *(f"--sparse-version={each}" for each in options[1:])]
    data = _said(program, "-C", str(tmp_path), "--sparse", *flags, "-cf", "-", "a")
    assert len(data) < MIB
    assert contents(room.unpack(data, "tar")) == {"a": (tmp_path / "a").read_bytes()}


def _said(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout
