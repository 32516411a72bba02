"""A prune that is killed, fails or meets a fetch at any of its steps: nothing that is needed goes.

The steps are those that touch the disk (`tests.stores.STEPS`). In a forked child the n-th one kills
the process, fails, or waits while another process does its whole work.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import StorageError
from dscache.events import Event, Waiting
from dscache.store import SMALL, Store
from dscache.store.removals import Removals
from tests.archives import File, tar_of
from tests.children import Died, forked
from tests.making import content, md5, sha256
from tests.stocked import DAY, Stock, aged, gone, kept
from tests.stores import KILLED, STEPS, Fault, faults_of, files_below

SHARED, ONE, TWO = content(5000, 1), content(3000, 2), content(SMALL + 9, 3)
TAR = tar_of(File("a.bin", content(5000, 4)), File("deep/b.bin", content(6000, 5)))
CONTENTS = {
    "going": {"one.bin": ONE, "shared.bin": SHARED, "deep/two.bin": TWO},
    "twin": {"same.bin": SHARED},
    "tar": {"a.tar": TAR},
    "weak": {"weak.bin": content(900, 6)},
    "pinned": {"mine.bin": content(700, 7), "shared.bin": SHARED},
    "held": {"held.bin": content(800, 8), "two.bin": TWO},
}
UNPACKED = CONTENTS | {"tar": {"a.bin": content(5000, 4), "deep/b.bin": content(6000, 5)}}
GOING = ("going", "twin", "tar", "weak")


@pytest.fixture
def stock(home: Path) -> Stock:
    """With datasets of every kind, one pinned, and garbage. This process holds none of them."""
    made = Stock(home, prune_grace=0)
    for name, files in CONTENTS.items():
        keys = {"tar": {"unpack": "tar"}, "weak": {"hash": md5(content(900, 6))}}.get(name, {})
        made.put(name, files, age=9 * DAY, **keys)
    made.put("stray", {"stray.bin": content(1000, 9)})
    made.record("stray").unlink()
    made.cache.pin("pinned")
    for part in (made.root / "parts/small.0-0.part", made.root / "quarantine/0-wrong.bin"):
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(b"left")
    aged(made.root, 8 * DAY)
    shutil.copytree(made.root, home / "kept", symlinks=True)
    return made


@contextmanager
def filled(stock: Stock) -> Iterator[None]:
    """The cache as it was at the beginning, hard links included, while `held` is held."""
    shutil.rmtree(stock.root)
    copy(stock.root.with_name("kept"), stock.root)
    with stock.cache.hold("held"):
        yield


def copy(source: Path, target: Path) -> None:
    """With times, and with links where blobs and trees have them."""
    done: dict[bytes, str] = {}

    def one(old: str, new: str) -> str:
        data = Path(old).read_bytes()
        inside = os.path.relpath(old, source).split(os.sep)[0]
        if inside in ("blobs", "trees", "datasets") and data in done:
            os.link(done[data], new)
            return new
        if inside in ("blobs", "trees", "datasets"):
            done[data] = new
        return shutil.copy2(old, new)

    shutil.copytree(source, target, copy_function=one)


def check(stock: Stock) -> None:
    """What holds at any time: no invariant is broken, and what is protected is whole."""
    assert faults_of(stock.root) == []
    for record in (stock.root / "records/shelf").glob("*.json"):
        for _, digest, *_ in json.loads(record.read_bytes())["files"]:
            assert (stock.root / "blobs/sha256" / digest[:2] / digest[2:]).exists()
    for name in ("pinned", "held"):
        assert stock.has(name)
        view = next((stock.root / f"datasets/shelf/{name}").iterdir())
        assert {path: (view / path).read_bytes() for path in CONTENTS[name]} == CONTENTS[name]


def check_end(stock: Stock) -> None:
    """Nothing is left but what is protected, and what another prune finds a while later."""
    aged(stock.root, 100)
    forked(stock.prune)
    assert sorted(each.name for each in stock.cache.cached()) == ["held", "pinned"]
    left = {path.read_bytes() for path in files_below(stock.root / "blobs")}
    assert left == {data for name in ("pinned", "held") for data in CONTENTS[name].values()}
    assert files_below(stock.root / "trees") == []
    assert files_below(stock.root / "removals") == []
    views = {path.parent.name for path in (stock.root / "datasets/shelf").glob("*/*")}
    assert views == {"held", "pinned"}
    assert stock.cache.plan_prune().removed == ()
    check(stock)


def fetch(stock: Stock, *names: str) -> None:
    """All are there afterwards, with the right bytes, while this process holds them."""
    found = stock.fetch_all(*names)
    for each, name in zip(found, names, strict=True):
        path = each.unwrap()
        for inside, data in UNPACKED.get(name, {}).items():
            file = path if path.is_file() else path / inside
            assert file.read_bytes() == data


def prune(stock: Stock) -> None:
    stock.prune(all=True)


def count_steps(stock: Stock, work: Callable[[], Any]) -> int:
    """How many steps something takes."""

    def child() -> int:
        taken = Fault(0, "kill").arm()
        work()
        return taken()

    return forked(child)


@pytest.mark.parametrize("how", ["kill", "fail", "tear"])
def test_a_prune_that_ends_anywhere_is_completed_by_the_next(stock: Stock, how: str) -> None:
    outcomes = []
    start, step = {"kill": (1, 3), "fail": (2, 3), "tear": (1, 1)}[how]
    for number, at in enumerate(itertools.count(start, step)):
        with filled(stock):
            outcomes.append(strike(stock, Fault(at, how)))
            check(stock)
            if outcomes[-1] == "done":
                break
            if number % 2:
                forked(lambda: fetch(stock, *GOING))
                check(stock)
            forked(lambda: prune(stock))
            check_end(stock)
    expected = {"kill": {"killed"}, "fail": {"failed", "survived"}, "tear": {"killed"}}[how]
    assert set(outcomes) == expected | {"done"}
    assert len(outcomes) > (1 if how == "tear" else 12)


def strike(stock: Stock, fault: Fault) -> str:
    """Prune until the fault strikes; what came of it."""

    def child() -> str:
        taken = fault.arm()
        try:
            prune(stock)
        except StorageError:
            return "failed"
        return "done" if taken() < fault.at else "survived"

    try:
        return forked(child)
    except Died as error:
        return "killed" if error.code == KILLED else str(error)


def test_what_the_disk_does_not_let_go_is_kept_and_said(stock: Stock) -> None:
    (blob,) = (
        path for path in files_below(stock.root / "blobs") if path.read_bytes() == content(900, 6)
    )

    def child() -> Any:
        unlink = STEPS["unlink"].unlink

        def refuse(path: str) -> None:
            if path == str(blob):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            unlink(path)

        STEPS["unlink"].unlink = refuse  # type: ignore[attr-defined]
        return stock.cache.prune(stock.cache.plan_prune(all=True))

    done = forked(child)
    assert set(gone(done)) >= {"going", "held", "tar", "twin", "weak"}
    assert blob.exists()
    os.utime(blob, (1e9, 1e9))
    assert gone(stock.prune(), "blob") == [f"sha256:{blob.parent.name}{blob.name}"]


# --- Two at once ----------------------------------------------------------------------------------


def pausing(at: int) -> Callable[[], int]:
    """Stop this process at its n-th step, until it is told to go on."""
    count = 0

    def paused(name: str) -> Callable[..., Any]:
        step = getattr(STEPS[name], name)

        def taken(*arguments: Any, **keys: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGSTOP)
            return step(*arguments, **keys)

        return taken

    for name in STEPS:
        setattr(STEPS[name], name, paused(name))
    return lambda: count


class Paused:
    """A forked child that stands still at its n-th step. Its exit code is 0 if it ends well."""

    def __init__(self, at: int, work: Callable[[], Any]) -> None:
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                taken = pausing(at)
                work()
                code = 0 if taken() >= at else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        self.stands = os.WIFSTOPPED(status)
        self.code = 0 if self.stands else os.waitstatus_to_exitcode(status)

    def go_on(self) -> int:
        """Let it go on to its end; its exit code."""
        if self.stands:
            os.kill(self.pid, signal.SIGCONT)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code


class Held:
    """A forked child that fetches, and lives until it is told to look once more and end."""

    def __init__(self, stock: Stock, *names: str) -> None:
        ready, told = os.pipe()
        end, go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.close(go)
                stock.hear = partial(_say_that_it_waits, told)
                fetch(stock, *names)
                os.write(told, b"x")
                os.read(end, 1)
                fetch(stock, *names)
                code = 0
            finally:
                os._exit(code)
        os.close(told)
        os.close(end)
        self._ready, self._go = ready, go
        self._said = b""

    def goes_as_far_as_it_can(self) -> None:
        """Return when it has what it fetches, or waits for somebody."""
        self._said = os.read(self._ready, 1)
        assert self._said, "it has failed"

    def has(self) -> bool:
        """True once it has what it fetches."""
        while self._said == b"w" or not self._said:
            self.goes_as_far_as_it_can()
        return True

    def end(self) -> int:
        """Let it look once more, and end; its exit code."""
        os.close(self._go)
        os.close(self._ready)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _say_that_it_waits(told: int, event: Event) -> None:
    if isinstance(event, Waiting):
        os.write(told, b"w")


def test_a_fetch_at_any_step_of_a_prune_gets_the_right_bytes(stock: Stock) -> None:
    """The prune stands still; the fetch waits for it, or goes on; then the prune goes on."""
    names = ("going", "tar", "weak")
    for at in itertools.count(1, 2):
        with filled(stock):
            pruner = Paused(at, lambda: prune(stock))
            if not pruner.stands:
                assert pruner.code == 2
                return
            fetcher = Held(stock, *names)
            fetcher.goes_as_far_as_it_can()
            assert pruner.go_on() == 0
            assert fetcher.has()
            forked(lambda: prune(stock))
            check(stock)
            assert all(map(stock.has, names))
            assert fetcher.end() == 0
            forked(lambda: prune(stock))
            check_end(stock)


def test_a_prune_at_any_step_of_a_fetch_takes_nothing_that_it_needs(stock: Stock) -> None:
    """The fetch, of what is here, of what another has too and of what is not, stands still."""
    shutil.rmtree(stock.root.with_name("kept"))
    forked(lambda: stock.prune("going", "weak"))
    copy(stock.root, stock.root.with_name("kept"))
    names = ("going", "tar", "weak")
    for at in itertools.count(1, 3):
        with filled(stock):
            fetcher = Paused(at, lambda: fetch(stock, *names))
            if not fetcher.stands:
                assert fetcher.code == 2
                return
            forked(lambda: prune(stock))
            check(stock)
            assert fetcher.go_on() == 0, at
            check(stock)
            forked(lambda: prune(stock))
            check_end(stock)


def test_two_prunes_at_once_do_not_disturb_each_other(stock: Stock) -> None:
    for at in itertools.count(1, 4):
        with filled(stock):
            first = Paused(at, lambda: prune(stock))
            if not first.stands:
                assert first.code == 2
                return
            forked(lambda: prune(stock))
            assert first.go_on() == 0
            check(stock)
            forked(lambda: prune(stock))
            check_end(stock)


def test_a_fetch_between_planning_and_doing_is_seen(stock: Stock) -> None:
    """A plan may be looked at for long; what has come meanwhile is not in it."""
    plan = stock.cache.plan_prune(all=True)
    fetcher = Held(stock, "going")
    assert fetcher.has()
    stock.put("new", {"new.bin": SHARED, "stray.bin": content(1000, 9)})
    done = forked(lambda: stock.cache.prune(plan))
    assert kept(done)["going"].startswith(f"process {fetcher.pid} on ")
    assert "going" not in gone(done)
    assert stock.has("new")
    assert [each for each in kept(done).values() if each == "it is needed by now"]
    assert fetcher.end() == 0
    assert {each.name for each in stock.cache.cached()} == {"pinned", "new", "going"}
    assert faults_of(stock.root) == []


def test_a_fetch_that_is_over_before_its_bytes_are_said_to_go_is_seen(stock: Stock) -> None:
    """Nobody holds any more what it brought, but there is a record now."""
    said = Removals.said
    wanted = sha256(SHARED).removeprefix("sha256:")

    def child() -> None:
        def late(self: Removals, what: Iterable[str]) -> Any:
            named = set(what)
            if wanted in named:
                forked(lambda: fetch(stock, "twin"))
            return said(self, named)

        Removals.said = late  # type: ignore[method-assign]
        stock.prune("going", "twin", "pinned")

    stock.cache.unpin("pinned")
    forked(child)
    assert [each.name for each in stock.cache.cached()] == ["held", "tar", "twin", "weak"]
    assert stock.has("twin")
    assert SHARED in {path.read_bytes() for path in files_below(stock.root / "blobs")}
    assert faults_of(stock.root) == []


# --- Clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_is_a_year_wrong_takes_nothing_that_is_in_use(home: Path, years: int) -> None:
    """What was written before stands a year in the future, or in the past."""
    stock = Stock(home)
    for number in range(3):
        stock.put(f"n{number}", {"a.bin": content(5000, number)}, age=(3 - number) * DAY)
    stock.put("pinned", {"a.bin": content(5000, 8)})
    stock.cache.pin("pinned")
    fetcher = Held(stock, "n0")
    assert fetcher.has()
    aged(stock.root, years * 365 * DAY)
    plan = stock.cache.plan_prune(older_than="30d")
    assert gone(plan) == ([] if years < 0 else ["n1", "n2"])
    assert all("-" not in row.reason for row in plan.removed)
    assert stock.cache.plan_prune().removed == ()
    assert gone(stock.prune(max_size=15_000)) == ["n1"]  # still the one that was used first
    assert set(kept(stock.prune(all=True))) == {"n0", "pinned"}
    assert stock.has("n0")
    assert all(row.last_used > 0 for row in stock.cache.usage().datasets)
    ages = {"not used for up to a day"} if years < 0 else {"not used for up to a year", "longer"}
    assert {group.key for group in stock.cache.usage("age").groups} <= ages
    assert fetcher.end() == 0
    assert gone(stock.prune(all=True)) == ["n0"]


@pytest.mark.parametrize("years", [-1, 1])
def test_a_filesystem_whose_clock_is_a_year_off_counts_by_its_own(home: Path, years: int) -> None:
    """As on a network disk: its files are timed by its server, and so are ages."""
    stock = Stock(home)
    clock = Store.clock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "clock", lambda self: clock(self) + years * 365 * DAY)
        for number in range(3):
            stock.put(f"n{number}", {"a.bin": content(5000, number)})
            stock.use(f"n{number}", (40 - 15 * number) * DAY - years * 365 * DAY)
        plan = stock.cache.plan_prune(older_than="20d")
        assert [row.reason for row in plan.removed] == ["last used 40 d ago", "last used 25 d ago"]
        assert gone(stock.cache.plan_prune(max_size=5000)) == ["n0", "n1"]
