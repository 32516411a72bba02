"""Crashes: every step that touches the disk fails in turn, and power is cut; nothing wrong is seen.

The steps are the functions of `filesystem`, the one seam to the disk. In a forked child the n-th
one kills the process, or kills it in the middle of a write, or fails as a full or broken disk does.
Afterwards the cache is looked at from outside, and the same work is done again without faults.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dscache
from dscache import filesystem
from dscache.cache import Cache
from dscache.errors import ManualDownload, StorageError
from dscache.store import SMALL
from tests.children import Died, forked, unprivileged
from tests.making import Shelf, artifact, content, md5
from tests.stores import (
    KILLED,
    Fault,
    boot,
    damaged,
    faults_of,
    files_below,
    overwrite,
    steps,
)

CONTENTS = {
    "one.bin": content(3000, 1),
    "deep/two.bin": content(700, 2),
    "twin.bin": content(700, 2),
    "empty.bin": b"",
    "large.bin": content(SMALL + 70_000, 3),
    "weak.bin": content(900, 4),
    "by hand.bin": content(1200, 6),
    "by hand, read-only.bin": content(800, 7),
}


@dataclass(frozen=True)
class World:
    """The folders of one case."""

    home: Path

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def mine(self) -> Path:
        return self.home / "mine"

    def reset(self) -> None:
        for folder in (self.cache, self.mine):
            shutil.rmtree(folder, ignore_errors=True)

    def work(self) -> None:
        """Import two files, fetch everything, put it into a folder."""
        self.fetch()
        cache = Cache()
        assert contents_of(cache.fetch("data", into=self.mine)) == CONTENTS
        assert [found.status for found in cache.fetch_all(["data"])] == ["cached"]

    def fetch(self) -> None:
        """The same without a folder."""
        hands = [name for name in CONTENTS if name.startswith("by hand")]
        Cache().import_file("data", *(self.home / "hands" / name for name in hands))
        assert contents_of(Cache().fetch("data")) == CONTENTS

    def faults(self) -> list[str]:
        """What is wrong, seen from outside."""
        found = faults_of(self.cache, CONTENTS)
        for path in files_below(self.mine):
            name = path.relative_to(self.mine).as_posix()
            if not path.name.startswith(".dscache-") and path.read_bytes() != CONTENTS[name]:
                found.append(f"{path} has wrong bytes")
        for path in files_below(self.home / "hands"):
            mode = 0o444 if "read-only" in path.name else 0o644
            if path.read_bytes() != CONTENTS[path.name] or path.stat().st_mode & 0o777 != mode:
                found.append(f"{path} was changed")
        return found


def contents_of(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if not path.name.startswith(".dscache-")
    }


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    shelf = Shelf(home / "shelf")
    (home / "hands").mkdir()
    artifacts = []
    for number, (name, data) in enumerate(CONTENTS.items()):
        (shelf.folder / f"file{number}").write_bytes(data)
        one = artifact(name, data, f"file{number}")
        if name.startswith("weak"):
            one |= {"hash": md5(data)}
            del one["size"]
        if name.startswith("by hand"):
            (home / "hands" / name).write_bytes(data)
            (home / "hands" / name).chmod(0o444 if "read-only" in name else 0o644)
            one |= {"urls": [], "manual": "Ask for it."}
        artifacts.append(one)
    shelf.add("data", artifacts)
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
    before = os.umask(0o022)
    os.umask(before)
    if before != 0o022:
        pytest.skip("the modes that are looked at are those of umask 022")
    made = World(home)
    made.work()  # also imports everything, so that children need not
    made.reset()
    return made


def strike(world: World, fault: Fault) -> str:
    """Work until the fault strikes; what came of it: "done", "killed", "failed" or "survived"."""

    def child() -> str:
        taken = fault.arm()
        try:
            world.work()
        except StorageError as error:
            return "failed" if error.code == 6 else f"code {error.code}"
        return "done" if taken() < fault.at else "survived"

    try:
        return forked(child)
    except Died as error:
        return "killed" if error.code == KILLED else str(error)


def each_step(world: World, how: str) -> Iterator[str]:
    """What came of a fault at every step, each in a new cache, which is fine, and then whole."""
    for at in itertools.count(1):
        world.reset()
        fault = Fault(at, how)
        outcome = strike(world, fault)
        yield outcome
        if outcome == "done":
            return
        assert world.faults() == [], fault
        forked(world.work)
        assert world.faults() == [], fault
        # A large part was taken over, not left beside a new one.
        left = [path.stat().st_size for path in files_below(world.cache / "parts")]
        assert max(left, default=0) < SMALL // 2, fault


@pytest.mark.timeout(400)
def test_a_crash_at_any_step_costs_only_work(world: World) -> None:
    outcomes = list(each_step(world, "kill"))
    assert set(outcomes) == {"killed", "done"}
    assert len(outcomes) > 80


def test_a_crash_within_any_write_costs_only_work(world: World) -> None:
    outcomes = list(each_step(world, "tear"))
    assert set(outcomes) == {"killed", "done"}
    assert len(outcomes) > 10


@pytest.mark.timeout(400)
def test_an_error_at_any_step_is_told_and_costs_only_work(world: World) -> None:
    outcomes = list(each_step(world, "fail"))
    assert set(outcomes) == {"failed", "survived", "done"}
    assert outcomes.count("failed") > 50


def test_after_an_error_the_same_process_can_go_on(world: World) -> None:
    for at in itertools.count(1, 6):
        world.reset()

        def child(at: int = at) -> bool:
            taken = Fault(at, "fail").arm()
            with suppress(StorageError):
                world.work()
            if taken() >= at:
                world.work()
            return taken() < at

        if forked(child):
            return
        assert world.faults() == []


# --- power cuts -----------------------------------------------------------------------------------


def opened_below(folder: Path, work: Callable[[], Any]) -> list[str]:
    """The files below a folder that are opened while something is done."""
    opened: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(str(folder)):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    work()
    watching = False
    return opened


def record_of(world: World) -> dict[str, Any]:
    (path,) = (world.cache / "records").rglob("*.json")
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def blob_of(world: World, name: str) -> Path:
    (view,) = (world.cache / "datasets/shelf/data").iterdir()
    (path,) = (blob for blob in files_below(world.cache / "blobs") if blob.samefile(view / name))
    return path


def after_a_restart(work: Callable[[], Any]) -> Any:
    """Do something in another process and another boot."""

    def child() -> Any:
        with boot("another"):
            return work()

    return forked(child)


def test_whole_bytes_are_verified_once_and_then_durable(world: World) -> None:
    world.fetch()
    assert not record_of(world)["durable"]
    blobs = world.cache / "blobs"

    def fetch() -> list[str]:
        return opened_below(blobs, lambda: dscache.fetch("data"))

    read = after_a_restart(fetch)
    assert {Path(path) for path in read} >= set(files_below(blobs))
    assert record_of(world)["durable"]
    assert after_a_restart(fetch) == []
    assert forked(fetch) == []


def test_with_durability_sync_all_is_on_the_disk_before_its_record(world: World) -> None:
    (world.home / "config.toml").write_text('durability = "sync"\n')
    with steps() as taken:
        world.fetch()
    assert record_of(world)["durable"]
    (record,) = (world.cache / "records").rglob("*.json")
    moves = [
        (number, *arguments) for number, (name, arguments) in enumerate(taken) if name == "rename"
    ]
    *_, committed = (number for number, _, target in moves if target == str(record))
    synced = {arguments[0] for name, arguments in taken[:committed] if name == "sync_path"}
    (view,) = (world.cache / "datasets/shelf/data").iterdir()
    assert {str(view.parent), str(view), str(view / "deep")} <= synced
    for blob in files_below(world.cache / "blobs"):
        assert max(number for number, _, target in moves if target == str(blob)) < committed
        assert str(blob.parent) in synced
    assert taken[committed - 1][0] == "sync"
    assert ("sync_path", (str(record.parent),)) in taken[committed:]


def test_where_durability_cannot_be_noted_bytes_are_verified_and_served(world: World) -> None:
    world.fetch()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fetch() -> dict[str, bytes]:
        filesystem.publish_bytes = full
        return contents_of(dscache.fetch("data"))

    assert after_a_restart(fetch) == CONTENTS
    assert not record_of(world)["durable"]


def test_torn_copies_in_a_cache_that_cannot_be_written_are_not_served(world: World) -> None:
    world.fetch()
    (view,) = (world.cache / "datasets/shelf/data").iterdir()
    (view / "one.bin").unlink()
    (view / "one.bin").write_bytes(CONTENTS["one.bin"])
    folders = [world.cache, *(path for path in world.cache.rglob("*") if path.is_dir())]

    def fetch() -> dict[str, bytes]:
        with boot("another"):
            return contents_of(dscache.fetch("data"))

    for folder in folders:
        folder.chmod(0o555)
    try:
        assert unprivileged(fetch) == CONTENTS
        overwrite(view / "one.bin", bytes(len(CONTENTS["one.bin"])))
        with pytest.raises(StorageError, match="cannot be used"):
            unprivileged(fetch)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_what_keeps_a_dataset_is_on_the_disk_at_once(world: World) -> None:
    """Else a prune after a power cut would take what somebody has asked to be kept."""
    world.fetch()
    with steps() as taken:
        Cache().pin("data")
        Cache().fetch("data", into=world.mine, link="symlink")
    synced = {arguments[0] for name, arguments in taken if name == "sync_path"}
    (pin,) = files_below(world.cache / "roots/pins")
    (root,) = files_below(world.cache / "roots/symlinked")
    assert {str(pin.parent), str(root.parent)} <= synced


def torn(data: bytes) -> Iterator[bytes]:
    """What a power cut leaves of a file that was not synced."""
    if data:
        yield b""
        yield bytes(len(data))
        yield data[:-1]
    if len(data) > 8192:
        yield data[:4096] + bytes(4096) + data[8192:]
        yield data[: len(data) // 2 & ~4095] + bytes(len(data) - (len(data) // 2 & ~4095))


@pytest.mark.parametrize("name", CONTENTS)
def test_torn_bytes_are_never_returned(world: World, name: str) -> None:
    for wrong in torn(CONTENTS[name]):
        world.fetch()
        overwrite(blob_of(world, name), wrong)
        hands = name.startswith("by hand")

        def fetch() -> dict[str, bytes]:
            return contents_of(dscache.fetch("data"))

        if hands:
            with pytest.raises(ManualDownload):
                after_a_restart(fetch)
            overwrite(world.home / "hands" / name, CONTENTS[name])  # it may be the very file
            after_a_restart(lambda: Cache().import_file("data", world.home / "hands" / name))
        assert after_a_restart(fetch) == CONTENTS
        assert world.faults() == []
        world.reset()


def test_a_torn_view_is_mended(world: World) -> None:
    world.fetch()
    (view,) = (world.cache / "datasets/shelf/data").iterdir()
    (view / "one.bin").unlink()
    (view / "large.bin").unlink()
    (view / "large.bin").write_bytes(bytes(len(CONTENTS["large.bin"])))
    (view / "twin.bin").unlink()
    (view / "twin.bin").touch()
    assert contents_of(after_a_restart(lambda: dscache.fetch("data"))) == CONTENTS
    assert world.faults() == []


@pytest.mark.parametrize("kind", ["records", "aliases", "proofs"])
def test_torn_small_files_of_the_cache_cost_only_work(world: World, kind: str) -> None:
    world.fetch()
    paths = files_below(world.cache / kind)
    assert paths
    wholes = [path.read_bytes() for path in paths]
    ways = list(damaged(min(wholes, key=len)))
    for number, wrong in enumerate(ways[:: len(ways) // 16]):  # all are tried where it is read
        for path in paths:
            overwrite(path, wrong)

        def fetch() -> dict[str, bytes]:
            return contents_of(dscache.fetch("data"))

        assert (after_a_restart if number % 2 else forked)(fetch) == CONTENTS
        assert world.faults() == []
