"""Growing archives: unpacked while they arrive, they become what they would have become at rest."""

from __future__ import annotations

import os
import random
import time
from functools import lru_cache
from pathlib import Path

import pytest

from dscache.errors import IntegrityError, StorageError, UnsafeError
from dscache.store import Blob
from dscache.unpack.unpacking import Unpacking
from tests.archives import (
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
)
from tests.making import content
from tests.rooms import Room, contents, everything, listed, room
from tests.stores import publish

__all__ = ["room"]

MIB = 1 << 20
_MOST = 3 * MIB // 2  # of each archive here; enough that unpacking begins
ENTRIES: list[Entry] = [
    Folder("d"),
    File("d/a", content(3 * MIB // 2, 1), 0o755),
    Link("l", "d/a"),
    *(File(f"d/{number}", content(number * 100, number)) for number in range(50)),
    File("z", content(MIB // 2, 2)),
]


@lru_cache
def archive(kind: str) -> bytes:
    """An archive that takes several steps to arrive."""
    if kind in SINGLES:
        return compressed(kind, content(2 * MIB, 3))
    return packed(kind, *ENTRIES, *([Twin("t", "z")] if kind in TARS else []))


class Arrival:
    """An archive on its way into a file, and its unpacking."""

    def __init__(self, room: Room, kind: str, data: bytes) -> None:
        self.data = data
        self.blob: Blob = publish(room.store, data)
        self.path = room.home / "arriving"
        self.path.write_bytes(b"")
        self.unpacking: Unpacking = room.unpacking(self.blob, recipe_of(kind), path=str(self.path))

    def come(self, until: int, data: bytes | None = None) -> None:
        """The bytes are here so far."""
        with open(self.path, "r+b") as file:
            file.write((data or self.data)[:until])
        self.unpacking.grow(until)

    def end(self) -> None:
        """All are here."""
        self.come(len(self.data))
        self.unpacking.complete()

    def eat(self, until: int) -> None:
        """Wait until bytes have been unpacked."""
        while self.unpacking.done < until and not self.unpacking.is_done:
            time.sleep(0.001)


@pytest.mark.parametrize("kind", [*TARS, "zip", *SINGLES])
@pytest.mark.parametrize("seed", range(2))
def test_it_is_the_same_however_it_arrives(room: Room, kind: str, seed: int) -> None:
    data, dice = archive(kind), random.Random(seed)
    arrival, size = Arrival(room, kind, data), 0
    while size < len(data):
        size = min(len(data), size + dice.choice([1, 511, 100_000, MIB // 2, MIB]))
        arrival.come(size)
        if dice.random() < 0.3 and kind != "zip":
            arrival.eat(size - MIB)
    arrival.end()
    streamed = arrival.unpacking.publish(arrival.blob)
    found = contents(streamed), sorted(listed(room, streamed), key=lambda each: each.path)
    at_rest = everything(Path(streamed.path))
    again = room.unpack(data, recipe_of(kind))  # what stands there is mended, were it wrong
    assert again == streamed
    assert everything(Path(again.path)) == at_rest
    members = sorted(listed(room, again), key=lambda each: each.path)
    assert (contents(again), members) == found
    assert os.listdir(room.store.layout.parts) == []


@pytest.mark.parametrize("kind", [*TARS, "zip", *SINGLES])
def test_it_begins_again_when_the_bytes_do(room: Room, kind: str) -> None:
    data = archive(kind)
    arrival = Arrival(room, kind, data)
    before = everything(room.home).keys()
    arrival.come(_MOST)
    if kind != "zip":
        arrival.eat(MIB)
    arrival.unpacking.restart()
    arrival.unpacking.restart()  # twice is fine
    assert everything(room.home).keys() == before
    arrival.come(_MOST, content(len(data)))  # not what was promised
    arrival.unpacking.restart()
    assert everything(room.home).keys() == before
    arrival.end()
    tree = arrival.unpacking.publish(arrival.blob)
    wanted = {each.name: each.data for each in ENTRIES if isinstance(each, File)}
    if kind in TARS:
        wanted["t"] = wanted["z"]
    if kind in SINGLES:
        wanted = {"content": content(2 * MIB, 3)}
    assert contents(tree) == wanted
    assert os.listdir(room.store.layout.parts) == []


@pytest.mark.parametrize("kind", [*TARS, "zip", *SINGLES])
@pytest.mark.parametrize("size", [0, 1000, _MOST, None])
def test_stopped_it_leaves_nothing(room: Room, kind: str, size: int | None) -> None:
    arrival = Arrival(room, kind, archive(kind))
    arrival.come(0)
    before = everything(room.home)
    if size is None:
        arrival.end()
    else:
        arrival.come(size)
        if kind != "zip":
            arrival.eat(size - MIB)
    arrival.unpacking.stop()
    arrival.unpacking.stop()
    arrival.path.write_bytes(b"")
    assert everything(room.home).keys() == before.keys()
    assert os.listdir(room.store.layout.parts) == []


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst"])
def test_what_is_wrong_on_the_way_is_told_at_the_end(room: Room, kind: str) -> None:
    data = packed(kind, File("a", content(MIB // 2)), File("../x"), File("b", content(2 * MIB)))
    arrival = Arrival(room, kind, data)
    arrival.come(_MOST)
    arrival.eat(MIB)
    arrival.end()
    with pytest.raises(UnsafeError, match=r"\.\./x"):
        arrival.unpacking.publish(arrival.blob)
    arrival.unpacking.stop()
    assert os.listdir(room.store.layout.parts) == []
    assert not os.path.exists(room.store.layout.trees)


@pytest.mark.parametrize("kind", [*TARS, "zip", *SINGLES])
def test_an_archive_that_ends_early_is_damaged(room: Room, kind: str) -> None:
    arrival = Arrival(room, kind, archive(kind))
    arrival.come(_MOST)
    arrival.unpacking.complete()
    with pytest.raises(IntegrityError):
        arrival.unpacking.publish(arrival.blob)
    assert os.listdir(room.store.layout.parts) == []


def test_a_file_that_becomes_shorter_is_no_damage_of_the_archive(room: Room) -> None:
    arrival = Arrival(room, "tar", archive("tar"))
    arrival.unpacking.grow(len(arrival.data))  # which has written nothing
    arrival.unpacking.complete()
    with pytest.raises(StorageError, match="cannot be unpacked"):
        arrival.unpacking.publish(arrival.blob)
    assert os.listdir(room.store.layout.parts) == []
