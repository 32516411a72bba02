"""Hashing behind a growing file, and the sinks that do it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dscache.digest import Sums
from dscache.store import Layout, Store
from dscache.transfer.hashing import Trail, hashing_threads
from dscache.transfer.sink import Memory, Origin, Sink, Trailed
from tests.downloads import moments
from tests.making import content

MIB = 1 << 20
DATA = content(11 * MIB + 17)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with hashing_threads() as executor:
        yield executor


def of(data: bytes) -> Sums:
    sums = Sums(["md5"])
    sums.update(data)
    return sums


def same(one: Sums, other: Sums) -> bool:
    return all(one[name] == other[name] for name in ("sha256", "xxh3_128", "md5"))


def awaited(thing: Trail | Sink) -> Sums:
    for _ in moments():
        if (sums := thing.sums()) is not None:
            return sums
        time.sleep(0.001)
    raise AssertionError


@pytest.mark.parametrize("step", [1 * MIB, 4 * MIB, 5 * MIB, 20 * MIB])
@pytest.mark.parametrize("size", [0, 1, 4 * MIB, len(DATA)])
def test_a_trail_follows(tmp_path: Path, threads: ThreadPoolExecutor, size: int, step: int) -> None:
    path = tmp_path / "grows"
    with path.open("wb", buffering=0) as file:
        trail = Trail(str(path), ["md5"], threads)
        for start in range(0, size, step):
            file.write(DATA[start : min(start + step, size)])
            trail.grow(min(start + step, size))
            assert trail.sums() is None
        trail.complete()
        assert same(awaited(trail), of(DATA[:size]))
        assert same(awaited(trail), of(DATA[:size]))


def test_a_trail_hashes_no_more_than_it_was_told(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    path = tmp_path / "longer"
    path.write_bytes(DATA)
    trail = Trail(str(path), ["md5"], threads)
    trail.grow(5 * MIB)
    trail.complete()
    assert same(awaited(trail), of(DATA[: 5 * MIB]))


def test_a_trail_that_cannot_read_says_so(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    path = tmp_path / "shorter"
    path.write_bytes(DATA[: 6 * MIB])
    trail = Trail(str(path), [], threads)
    trail.grow(len(DATA))
    trail.complete()
    with pytest.raises(OSError, match="shorter"):
        awaited(trail)
    trail.stop()
    with pytest.raises(OSError, match="shorter"):
        trail.sums()


def test_a_trail_of_no_file_says_so(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    trail = Trail(str(tmp_path / "missing"), [], threads)
    trail.grow(8 * MIB)
    trail.complete()
    with pytest.raises(FileNotFoundError):
        awaited(trail)


def test_a_stopped_trail_lets_go(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    path = tmp_path / "grows"
    path.write_bytes(DATA)
    trail = Trail(str(path), [], threads)
    trail.grow(len(DATA))
    trail.stop()
    trail.stop()
    trail.complete()
    trail.restart()
    path.write_bytes(DATA[::-1])
    trail.grow(len(DATA))
    trail.complete()
    assert awaited(trail)["sha256"] == of(DATA[::-1])["sha256"]


def test_many_trails_at_once(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """More of them than there are threads."""
    trails = []
    for number in range(12):
        path = tmp_path / str(number)
        path.write_bytes(DATA[number:])
        trail = Trail(str(path), ["md5"], threads)
        trail.grow(len(DATA) - number)
        trail.complete()
        trails.append(trail)
    for number, trail in enumerate(trails):
        assert same(awaited(trail), of(DATA[number:]))


# --- Sinks ----------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "trailed"])
def sink(
    request: pytest.FixtureRequest, tmp_path: Path, threads: ThreadPoolExecutor
) -> Iterator[Sink]:
    if request.param == "memory":
        yield Memory(["md5"])
        return
    store = Store(str(tmp_path / "cache"))
    store.prepare()
    made = Trailed(store.parts().begin("key", None), ["md5"], threads)
    yield made
    made.keep()


def test_a_sink_takes_bytes_in_order(sink: Sink) -> None:
    assert sink.size == 0
    for start in range(0, len(DATA), 3 * MIB):
        piece = DATA[start : start + 3 * MIB]
        sink.write([piece[:1000], b"", piece[1000:]])
    assert sink.size == len(DATA)
    assert b"".join(sink.chunks()) == DATA
    assert sink.first_bytes(80) == DATA[:80]
    assert same(awaited(sink), of(DATA))


def test_an_empty_sink_has_sums(sink: Sink) -> None:
    assert same(awaited(sink), of(b""))
    assert sink.first_bytes(80) == b""
    assert b"".join(sink.chunks()) == b""


def test_a_sink_starts_over(sink: Sink) -> None:
    sink.note(Origin("http://host/a", '"tag"', 7))
    sink.write([DATA])
    sink.restart()
    assert sink.size == 0
    assert sink.origin.validator == ""
    sink.write([DATA[:1000]])
    assert same(awaited(sink), of(DATA[:1000]))


def test_a_sink_remembers_where_bytes_come_from(sink: Sink) -> None:
    origin = Origin("http://host/a", '"tag"', 7)
    sink.note(origin)
    assert sink.origin == origin


def test_a_sink_is_rewritten_from_itself(sink: Sink) -> None:
    sink.write([DATA])
    sink.rewrite(chunk[::-1] for chunk in sink.chunks())
    made = b"".join(sink.chunks())
    assert len(made) == sink.size == len(DATA)
    assert made != DATA
    assert same(awaited(sink), of(made))


def test_a_rewrite_that_fails_leaves_the_bytes(sink: Sink) -> None:
    def fails() -> Iterator[bytes]:
        yield b"new"
        raise ZeroDivisionError

    sink.write([DATA])
    with pytest.raises(ZeroDivisionError):
        sink.rewrite(fails())
    assert sink.first_bytes(80) == DATA[:80]
    sink.restart()
    sink.write([b"again"])
    assert same(awaited(sink), of(b"again"))


def test_a_sink_is_secured_while_it_grows(sink: Sink) -> None:
    for start in range(0, len(DATA), MIB):
        sink.write([DATA[start : start + MIB]])
        sink.secure()
        time.sleep(0.001)
    assert same(awaited(sink), of(DATA))


def test_what_was_secured_is_in_the_journal(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    store = Store(str(tmp_path / "cache"))
    store.prepare()
    sink = Trailed(store.parts().begin("key", None), [], threads)
    sink.write([DATA])
    sink.secure()
    sink.keep()
    assert sink.part.journal.synced == len(DATA)
    assert sink.part.journal.owner is None


def test_kept_bytes_are_found_and_hashed_from_the_start(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    store = Store(str(tmp_path / "cache"))
    store.prepare()
    first = Trailed(store.parts().begin("key", None), [], threads)
    first.write([DATA[: 6 * MIB]])
    first.keep()
    second = Trailed(store.parts().begin("key", None), ["md5"], threads)
    assert second.size == 6 * MIB
    second.write([DATA[6 * MIB :]])
    assert same(awaited(second), of(DATA))
    second.release()
    assert os.path.exists(second.part.path)


def test_an_empty_part_is_not_kept(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    store = Store(str(tmp_path / "cache"))
    store.prepare()
    sink = Trailed(store.parts().begin("key", None), [], threads)
    sink.keep()
    assert not os.listdir(Layout(str(tmp_path / "cache")).parts)
