"""A verification that was interrupted goes on where it was, however it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import dscache
from dscache.cache import Cache
from dscache.digest import Reader
from dscache.events import Checked, Event, Notice
from dscache.results import Verified
from dscache.verifying.pacing import Pace, Stopped
from tests.children import interpreter
from tests.downloads import moments
from tests.making import Shelf, artifact, content, sha256
from tests.stores import boot, damaged, flip, overwrite
from tests.test_pruning import packed

SIZE, COUNT = 60_000, 30
#: The larger a file the earlier it is read; before these come an archive and what it holds.
FILES = {f"{n:02}.bin": content(SIZE - n, n) for n in range(COUNT)}
MEMBERS = {f"m{n}.bin": content(9000 + n, n) for n in range(10)}

#: Slow enough to be interrupted; its state is written often, and knows the times of files better
#: than it is believed to.
CODE = """
import sys
from dscache.verifying import resuming, sweeping
from dscache.cli import main
sweeping._SAVE_EVERY, resuming._GRAIN = 0.05, 0.02
sys.argv = ["dscache", "verify", "--limit-rate", "800kB", *sys.argv[1:]]
main()
"""

#: What is younger when a verification begins may be read again.
_GRAIN = 0.1


@pytest.fixture
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shelf = Shelf(home / "shelf")
    for name, data in {**FILES, "pack.tar": packed(MEMBERS)}.items():
        (shelf.folder / name).write_bytes(data)
    shelf.add("many", [artifact(name, data, name) for name, data in FILES.items()])
    shelf.add("pack", [artifact("pack.tar", packed(MEMBERS), "pack.tar", unpack="tar")])
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
    dscache.fetch_many(["many", "pack"])
    time.sleep(_GRAIN)
    return home / "cache"


def blob(cache: Path, number: int) -> Path:
    hex_ = sha256(FILES[f"{number:02}.bin"]).removeprefix("sha256:")
    return cache / "blobs/sha256" / hex_[:2] / hex_[2:]


def interrupted(cache: Path, how: signal.Signals, *arguments: str, after: int = 16) -> int:
    """Verify in a process of its own and stop it when some files have been read; its exit code."""
    with interpreter("-c", CODE, *arguments) as process:
        for _ in moments():
            assert process.poll() is None, process.communicate()
            if left(cache).get("files", 0) >= after:
                break
        process.send_signal(how)
        return process.wait(60)


def left(cache: Path) -> dict[str, Any]:
    path = cache / "verify.json"
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


class Watch:
    """Verifies, and notes what was told and which files were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[Event] = []
        self.read: list[str] = []
        sum_of = Reader.sum_of

        def noted(reader: Reader, path: str, algorithm: str) -> str:
            self.read.append(path)
            return sum_of(reader, path, algorithm)

        monkeypatch.setattr(Reader, "sum_of", noted)

    def verify(self, *names: str, **how: Any) -> Verified:
        self.events.clear()
        self.read.clear()
        return Cache().verify(names, progress=self.events.append, **how)

    def has_gone_on(self) -> bool:
        return any(isinstance(each, Notice) and "going on" in each.message for each in self.events)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.mark.parametrize("how", CODES)
def test_it_goes_on_where_it_was(cache: Path, watch: Watch, how: signal.Signals) -> None:
    flip(blob(cache, 0))  # read first
    flip(blob(cache, COUNT - 1))
    time.sleep(_GRAIN)
    assert interrupted(cache, how) == CODES[how]
    before = left(cache)["files"]
    found = watch.verify()
    assert watch.has_gone_on()
    assert str(blob(cache, 0)) not in watch.read
    # What is damaged is read a second time, by its sha256.
    assert len(watch.read) <= COUNT + 1 + len(MEMBERS) - before + 1
    assert {each.path for each in found.corrupt} == {
        str(blob(cache, 0)),
        str(blob(cache, COUNT - 1)),
    }
    assert found.checked == COUNT + 1 + len(MEMBERS) + 2
    assert found.ok == found.checked - 2
    assert not (cache / "verify.json").exists()
    watch.verify()
    assert not watch.has_gone_on()
    assert len(watch.read) >= COUNT + 1 + len(MEMBERS)


def test_what_has_changed_or_come_since_is_read(cache: Path, watch: Watch) -> None:
    flip(blob(cache, 1))
    time.sleep(_GRAIN)
    interrupted(cache, signal.SIGKILL)
    overwrite(blob(cache, 1), FILES["01.bin"])
    flip(blob(cache, 2))
    new = content(SIZE * 2, 99)
    (cache.parent / "shelf/new.bin").write_bytes(new)
    Shelf(cache.parent / "shelf").add("new", [artifact("new.bin", new, "new.bin")])
    dscache.fetch("new")
    found = watch.verify()
    assert watch.has_gone_on()
    assert [each.path for each in found.corrupt] == [str(blob(cache, 2))]
    assert any(sha256(new)[10:] in path for path in watch.read)


def test_a_tree_whose_list_has_changed_is_read_again(cache: Path, watch: Watch) -> None:
    interrupted(cache, signal.SIGKILL)
    (path,) = cache.glob("trees/*/*/members")
    flip(path)
    assert any("list of its members" in each.problem for each in watch.verify().corrupt)


@pytest.mark.parametrize("other", [{"full": True}, {"names": ["many"]}])
def test_another_question_begins_anew(cache: Path, watch: Watch, other: dict[str, Any]) -> None:
    interrupted(cache, signal.SIGKILL)
    watch.verify(*other.pop("names", ()), **other)
    assert not watch.has_gone_on()
    watch.verify()
    assert watch.has_gone_on()


def test_after_a_restart_all_is_read_again(cache: Path, watch: Watch) -> None:
    """A power cut changes what is on the disk, and not the time of any file."""
    interrupted(cache, signal.SIGKILL)
    with boot("another"):
        watch.verify()
    assert not watch.has_gone_on()


def test_an_old_state_says_nothing(cache: Path, watch: Watch) -> None:
    interrupted(cache, signal.SIGKILL)
    yesterday = time.time() - 90_000
    os.utime(cache / "verify.json", (yesterday, yesterday))
    watch.verify()
    assert not watch.has_gone_on()


def test_a_state_that_makes_no_sense_says_nothing(cache: Path, watch: Watch) -> None:
    interrupted(cache, signal.SIGKILL)
    whole = (cache / "verify.json").read_bytes()
    for wrong in [*damaged(whole)][:: len(whole) // 20]:
        (cache / "verify.json").write_bytes(wrong)
        assert watch.verify().corrupt == ()
        assert not watch.has_gone_on()


def test_two_at_once_do_not_take_over_each_other(cache: Path, watch: Watch) -> None:
    with interpreter("-c", CODE) as process:
        for _ in moments():
            if left(cache):
                break
        watch.verify()
        assert not watch.has_gone_on()
        assert process.wait(60) == 0


def test_a_repair_goes_on_too(cache: Path, watch: Watch) -> None:
    flip(blob(cache, 0))
    time.sleep(_GRAIN)
    interrupted(cache, signal.SIGTERM)
    found = watch.verify(repair=True)
    assert watch.has_gone_on()
    assert (found.corrupt, len(found.repaired)) == ((), 1)
    assert blob(cache, 0).read_bytes() == FILES["00.bin"]
    assert not (cache / "verify.json").exists()


def test_the_rate_is_kept(cache: Path) -> None:
    """Slower is no failure: what is compared is how much was read by when."""
    rate, slack = 4_000_000, (os.cpu_count() or 1) * (1 << 18)
    began = time.monotonic()
    seen: list[tuple[float, int]] = []

    def hear(event: Event) -> None:
        if isinstance(event, Checked):
            seen.append((time.monotonic() - began, event.done))

    Cache().verify(limit_rate=rate, progress=hear)
    assert all(done <= rate * seconds + slack for seconds, done in seen)
    assert seen[-1][1] >= sum(map(len, FILES.values()))


def test_who_waits_for_the_rate_can_be_stopped() -> None:
    pace = Pace(1)
    pace.stop()
    with pytest.raises(Stopped):
        pace(1 << 20)
    assert pace.done == 1 << 20
