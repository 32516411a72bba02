"""What a prune takes: each policy alone and together, bytes as the disk has them, and the order."""

from __future__ import annotations

import json
import os
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dscache.cache import Cache
from dscache.cli import cli
from dscache.errors import NotCached, UsageError
from dscache.model import Reference
from dscache.pruning.inventory import Holding, Inventory
from dscache.pruning.policy import Choice, Policy, Room
from tests.archives import File, tar_of
from tests.making import content
from tests.mounts import MIB, SMALLEST, mounted
from tests.stocked import DAY, Stock, allocated, gone, kept
from tests.stores import faults_of, files_below

SIZE = 10_000
ONE, TWO, SHARED = content(SIZE, 1), content(SIZE, 2), content(SIZE, 3)
TAR = tar_of(File("a.bin", content(5000, 4)), File("deep/b.bin", content(6000, 5)))


@pytest.fixture
def stock(home: Path) -> Stock:
    return Stock(home)


def fill(stock: Stock, count: int = 4) -> list[str]:
    """Datasets of SIZE bytes each, the first of which was used the longest ago."""
    names = [f"n{number}" for number in range(count)]
    for number, name in enumerate(names):
        stock.put(name, {"a.bin": content(SIZE, 10 + number)}, age=(count - number) * 10 * DAY)
    return names


# --- Which datasets -------------------------------------------------------------------------------


def test_without_a_policy_no_dataset_goes(stock: Stock) -> None:
    names = fill(stock)
    plan = stock.cache.plan_prune()
    assert (plan.removed, plan.kept, plan.freed_bytes) == ((), (), 0)
    assert stock.cache.prune(plan) == plan
    assert all(map(stock.has, names))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"older_than": "25d"}, 2),
        ({"older_than": 25 * DAY}, 2),
        ({"older_than": "41d"}, 0),
        ({"older_than": 0}, 4),
        ({"max_size": "25kB"}, 2),
        ({"max_size": 2 * SIZE}, 2),
        ({"max_size": 2 * SIZE - 1}, 3),
        ({"max_size": 0}, 4),
        ({"max_size": "1GB"}, 0),
        ({"free": 0}, 0),
        ({"free": "999999TB"}, 4),
        ({"all": True}, 4),
        ({"older_than": "35d", "max_size": "25kB"}, 2),
        ({"older_than": "15d", "max_size": "25kB"}, 3),
        ({"max_size": 0, "free": 0}, 4),
        ({"older_than": "25d", "archives": True}, 2),
        ({"archives": True}, 0),
    ],
    ids=str,
)
def test_a_policy_takes_the_least_recently_used(
    stock: Stock, policy: dict[str, Any], expected: int
) -> None:
    names = fill(stock)
    plan = stock.cache.plan_prune(**policy)
    assert gone(plan) == names[:expected]
    assert sum(row.bytes for row in plan.removed) == expected * SIZE
    assert all(map(stock.has, names))  # planning removes nothing
    done = stock.cache.prune(plan)
    assert done == plan
    assert [name for name in names if stock.has(name)] == names[expected:]
    assert stock.blobs == len(names) - expected
    assert stock.cache.usage().bytes == (len(names) - expected) * SIZE
    assert faults_of(stock.root) == []
    assert stock.cache.plan_prune(**policy).removed == ()


def test_each_row_says_why_and_when_it_was_used(stock: Stock) -> None:
    fill(stock, 3)
    old, large = stock.cache.plan_prune(older_than="25d", max_size=SIZE).removed
    assert old.reason == "last used 30 d ago"
    assert large.reason == "the least recently used go until 10 kB are left"
    assert old.last_used == stock.record("n0").stat().st_mtime
    (row,) = stock.cache.plan_prune(["n1"]).removed
    assert (row.kind, row.name, row.reason) == ("dataset", "shelf/n1@1", "named")


def test_what_was_used_again_is_the_last_to_go(stock: Stock) -> None:
    first, *rest = fill(stock)
    with stock.cache.hold(first):
        pass
    assert gone(stock.cache.plan_prune(max_size=SIZE)) == rest


def test_names_take_all_versions_unless_one_is_named(stock: Stock) -> None:
    for version in ("1", "2"):
        stock.put("many", {"a.bin": content(SIZE, int(version))}, version=version)
    stock.put("other", {"a.bin": content(SIZE, 8)})
    assert gone(stock.cache.plan_prune(["many@2"])) == ["many@2"]
    assert gone(stock.cache.plan_prune(["shelf/many"])) == ["many", "many@2"]
    assert gone(stock.cache.plan_prune(["many", "other@1"])) == ["many", "many@2", "other"]
    assert gone(stock.prune("many")) == ["many", "many@2"]
    assert stock.has("other")


@pytest.mark.parametrize("name", ["none", "other/n0", "n0@2"])
def test_a_name_that_is_not_here_is_told(stock: Stock, name: str) -> None:
    fill(stock)
    with pytest.raises(NotCached):
        stock.cache.plan_prune(["n1", name])


@pytest.mark.parametrize(
    "wrong", [{"older_than": "soon"}, {"max_size": "-1"}, {"free": "much"}, {"older_than": True}]
)
def test_what_makes_no_sense_is_refused(stock: Stock, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        stock.cache.plan_prune(**wrong)


def test_a_policy_with_names_concerns_these_alone(stock: Stock) -> None:
    fill(stock)
    assert gone(stock.cache.plan_prune(["n0", "n3"], older_than="15d")) == ["n0"]
    assert gone(stock.cache.plan_prune(["n2", "n3"], max_size=3 * SIZE)) == ["n2"]
    assert gone(stock.cache.plan_prune(["n1"], all=True)) == ["n1"]


def test_names_leave_garbage_alone(stock: Stock) -> None:
    fill(stock)
    stray = stock.root / "parts" / f"small.{'0' * 16}-0.part"
    stray.write_bytes(b"left")
    os.utime(stray, (1e9, 1e9))
    stock.prune("n0")
    assert stray.exists()
    stock.prune(all=True)
    assert not stray.exists()


def test_the_setting_counts_where_nothing_else_is_asked_for(home: Path) -> None:
    stock = Stock(home, max_size="25kB")
    fill(stock)
    assert gone(stock.cache.plan_prune()) == ["n0", "n1"]
    assert gone(stock.cache.plan_prune(["n3"])) == ["n3"]
    assert gone(stock.cache.plan_prune(older_than="35d")) == ["n0"]
    assert gone(stock.cache.plan_prune(max_size="1GB")) == []


def test_an_empty_cache_and_none_at_all_have_nothing_to_prune(stock: Stock) -> None:
    assert stock.prune(all=True).removed == ()
    assert stock.prune(max_size=0, free="1000TB").removed == ()
    assert not stock.root.exists()
    fill(stock, 1)
    stock.prune(all=True)
    assert stock.prune(all=True, max_size=0, archives=True).removed == ()


def test_what_is_garbage_need_not_be_made_up_for(stock: Stock) -> None:
    """The budget is kept to by what goes anyway, before datasets go."""
    names = fill(stock)
    stock.record("n3").unlink()
    os.utime(next(iter(stray(stock, "n3"))), (1e9, 1e9))
    plan = stock.cache.plan_prune(max_size=3 * SIZE)
    assert [row.kind for row in plan.removed if row.kind == "blob"] == ["blob"]
    assert gone(stock.prune(max_size=3 * SIZE)) == []
    assert [name for name in names if stock.has(name)] == names[:3]


def stray(stock: Stock, name: str) -> list[Path]:
    """The blobs in a view."""
    inodes = {path.stat().st_ino for path in (stock.root / f"datasets/shelf/{name}").rglob("*")}
    return [path for path in files_below(stock.root / "blobs") if path.stat().st_ino in inodes]


# --- Bytes ----------------------------------------------------------------------------------------


def test_what_two_share_goes_with_the_last(stock: Stock) -> None:
    stock.put("a", {"one.bin": ONE, "shared.bin": SHARED}, age=2 * DAY)
    stock.put("b", {"two.bin": TWO, "same.bin": SHARED, "twin.bin": SHARED}, age=DAY)
    plan = stock.cache.plan_prune(all=True)
    assert [row.bytes for row in plan.removed] == [SIZE, 2 * SIZE]
    assert gone(stock.cache.plan_prune(max_size=2 * SIZE)) == ["a"]
    assert gone(stock.cache.plan_prune(max_size=2 * SIZE - 1)) == ["a", "b"]
    done = stock.prune("a")
    assert sum(row.bytes for row in done.removed) == SIZE
    assert stock.has("b")
    assert stock.blobs == 2
    assert stock.prune("b").removed[0].bytes == 2 * SIZE
    assert stock.blobs == 0


def test_freed_is_what_the_files_took(stock: Stock) -> None:
    stock.put("a", {"one.bin": ONE, "two.bin": b"little"})
    stock.put("tar", {"a.tar": TAR}, unpack="tar")
    stock.put("stays", {"a.bin": TWO, "b.bin": ONE})
    blobs, trees = files_below(stock.root / "blobs"), files_below(stock.root / "trees")
    stays = [path for path in blobs if path.read_bytes() in (ONE, TWO)]
    plan = stock.cache.plan_prune(["a", "tar"])
    assert plan.freed_bytes == allocated([*blobs, *trees]) - allocated(stays)
    assert stock.cache.prune(plan).freed_bytes == plan.freed_bytes
    assert stock.has("stays")
    assert files_below(stock.root / "trees") == []


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_real_disk_gets_back_what_was_said(home: Path, kind: str) -> None:
    with mounted(kind, 32 * MIB, home / "disk") as disk:
        stock = Stock(disk)
        for number in range(4):
            files = {"a.bin": content(2 * MIB, number), "b.bin": content(70_000, 9 + number)}
            stock.put(f"n{number}", files, age=(4 - number) * DAY)
        os.sync()
        before = free(disk)
        plan = stock.cache.plan_prune(free=before + 3 * MIB)
        assert gone(plan) == ["n0", "n1"]
        done = stock.cache.prune(plan)
        os.sync()
        assert done.freed_bytes == plan.freed_bytes
        # Folders, records and proofs of what went are not counted.
        assert 0 <= free(disk) - before - done.freed_bytes < 32 * 4096
        assert free(disk) >= before + 3 * MIB


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "btrfs"])
def test_a_disk_that_is_full_to_the_last_byte_can_be_pruned(home: Path, kind: str) -> None:
    with mounted(kind, max(16 * MIB, SMALLEST[kind]), home / "disk") as disk:
        stock = Stock(disk)
        stock.put("going", {"a.bin": ONE, "b.bin": content(300_000, 5)})
        stock.put("tar", {"a.tar": TAR}, unpack="tar")
        stock.put("linked", {"c.bin": TWO})
        with stock.cache.hold("linked", into=disk / "mine", link="symlink"):
            pass
        (disk / "mine").rename(disk / "not mounted")
        fill_up(disk)
        done = stock.prune(all=True)
        assert gone(done) == ["going", "tar"]
        assert done.freed_bytes > 300_000
        assert not stock.has("going")
        assert stock.has("linked")
        assert files_below(stock.root / "removals") == []
        assert stock.cache.plan_prune().removed == ()
        assert faults_of(stock.root) == []


def fill_up(disk: Path) -> None:
    """Write until not even a byte more can be written."""
    for size in (MIB, 4096, 1):
        with open(disk / f"ballast-{size}", "wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(size))
                os.fsync(file.fileno())
    with pytest.raises(OSError, match="No space"):
        (disk / "ballast").write_bytes(b"x")


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def test_a_folder_with_hard_links_keeps_the_bytes_and_is_named(stock: Stock, home: Path) -> None:
    stock.put("linked", {"one.bin": ONE, "two.bin": TWO}, age=2 * DAY)
    stock.put("plain", {"a.bin": SHARED}, age=DAY)
    with stock.cache.hold("linked", into=home / "project", link="hardlink"):
        pass
    stock.use("linked", 2 * DAY)
    plan = stock.cache.plan_prune(["linked"])
    (row,) = plan.removed
    assert f"; frees 0 B now: linked from {home / 'project'} (hard links)" in row.reason
    assert (row.bytes, plan.freed_bytes) == (2 * SIZE, 0)
    assert gone(stock.cache.plan_prune(free="999999TB")) == ["plain"]  # it would free nothing
    assert gone(stock.cache.plan_prune(max_size=SIZE)) == ["linked"]
    assert stock.cache.prune(plan).freed_bytes == 0
    assert (home / "project/one.bin").read_bytes() == ONE
    assert stock.blobs == 1


def test_links_that_nobody_noted_are_said_too(stock: Stock, home: Path) -> None:
    path = stock.put("a", {"one.bin": ONE})
    os.link(path, home / "mine.bin")
    (row,) = stock.cache.plan_prune(["a"]).removed
    assert row.reason == "named; frees 0 B now: linked from elsewhere"


def test_of_files_partly_linked_the_rest_is_freed(stock: Stock, home: Path) -> None:
    folder = stock.put("a", {"one.bin": ONE, "two.bin": TWO})
    expected = allocated([folder / "one.bin"])
    with stock.cache.hold("a", files="two.bin", into=home / "project", link="hardlink"):
        pass
    plan = stock.cache.plan_prune(["a"])
    assert "linked from" in plan.removed[0].reason
    assert plan.freed_bytes == expected
    assert stock.cache.prune(plan).freed_bytes == expected


def test_twins_go_together_where_room_is_wanted(stock: Stock, home: Path) -> None:
    """Each alone frees nothing; what goes besides is what no one else has."""
    stock.put("twin-a", {"a.bin": SHARED}, age=4 * DAY)
    stock.put("linked", {"one.bin": ONE}, age=3 * DAY)
    os.link(stray(stock, "linked")[0], home / "mine.bin")
    stock.put("twin-b", {"b.bin": SHARED}, age=2 * DAY)
    plan = stock.cache.plan_prune(free="999999TB")
    assert gone(plan) == ["twin-a", "twin-b"]
    assert [row.bytes for row in plan.removed] == [0, SIZE]
    assert plan.freed_bytes == allocated(stray(stock, "twin-b"))
    assert stock.cache.prune(plan) == plan


# --- The command ----------------------------------------------------------------------------------


def command(*words: str) -> dict[str, Any]:
    found = CliRunner().invoke(cli, ["prune", *words, "--json"])
    assert found.exit_code == 0, found.output
    document: dict[str, Any] = json.loads(found.stdout)
    return document


@pytest.mark.parametrize(
    "words",
    [
        ("--all",),
        ("--older-than", "25d"),
        ("--max-size", "15kB"),
        ("--free", "999999TB"),
        ("n1", "shelf/n2@1"),
        ("--archives", "--max-size", "15kB"),
    ],
    ids=" ".join,
)
def test_a_dry_run_prints_the_very_plan(
    stock: Stock, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    for name, value in stock.environment.items():
        monkeypatch.setenv(name, value)
    fill(stock)
    stock.put("tar", {"a.tar": TAR}, unpack="tar", age=5 * DAY)
    stock.cache.pin("n1")
    dry = command(*words, "--dry-run")
    assert dry["dry_run"]
    assert dry == command(*words, "--dry-run")
    done = command(*words)
    assert done == dry | {"dry_run": False}
    assert done["removed"]


def test_the_table_shows_bytes_last_use_and_reason(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stock.environment.items():
        monkeypatch.setenv(name, value)
    fill(stock, 2)
    stock.cache.pin("n1")
    os.utime(stock.record("n0"), (1e9, 1e9))
    dry = CliRunner().invoke(cli, ["prune", "--all", "--dry-run"])
    head, row, *rest = dry.stdout.splitlines()
    assert head.split() == ["what", "of", "size", "last", "used", "(UTC)", "reason"]
    assert row.split()[:6] == ["dataset", "shelf/n0@1", "10", "kB", "2001-09-09", "01:46"]
    assert "all are to go" in row
    assert [line.split()[0] for line in rest] == ["kept"]
    assert "it is pinned" in rest[0]
    assert dry.stderr.startswith("would free ")
    assert stock.has("n0")
    assert CliRunner().invoke(cli, ["prune", "--all"]).stderr.startswith("freed ")
    assert not stock.has("n0")


# --- The choice, against a naive one --------------------------------------------------------------

DATASETS = st.lists(
    st.tuples(
        st.integers(0, 5),  # age in days
        st.sets(st.integers(0, 7), max_size=4),  # things
        st.booleans(),  # protected
    ),
    max_size=6,
)
THINGS = st.lists(
    st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), min_size=8, max_size=8
)
POLICIES = st.builds(
    Policy,
    older_than=st.none() | st.integers(0, 5).map(lambda days: days * DAY + 1),
    max_size=st.none() | st.integers(0, 40),
    free=st.none() | st.integers(0, 60),
    all=st.booleans(),
)


class Naive:
    """What stands in the cache, counted anew for every question."""

    def __init__(
        self,
        datasets: list[tuple[int, set[int], bool]],
        things: list[tuple[int, bool, bool]],
    ) -> None:
        self.datasets = datasets
        self.things = things
        self.gone: list[int] = []

    def lost(self, gone: list[int]) -> set[int]:
        """Things that are here and that nobody needs once these datasets are gone."""
        left = {n for i, each in enumerate(self.datasets) if i not in gone for n in each[1]}
        all_ = {n for each in self.datasets for n in each[1]}
        return {n for n in all_ - left if self.things[n][1]}

    def bytes(self, gone: list[int]) -> int:
        return sum(self.things[n][0] for n in self.lost(gone))

    def freed(self, gone: list[int]) -> int:
        return sum(self.things[n][0] for n in self.lost(gone) if self.things[n][2])

    def run(self, policy: Policy, order: list[int], room: Room) -> list[int]:
        free = [i for i in order if not self.datasets[i][2]]
        for i in free:
            age = self.datasets[i][0] * DAY
            if policy.all or (policy.older_than is not None and age > policy.older_than):
                self.gone.append(i)
        for i in free:
            small = policy.max_size is None or room.size - self.bytes(self.gone) <= policy.max_size
            if not small and i not in self.gone:
                self.gone.append(i)
        before = list(self.gone)
        for i in free:
            enough = policy.free is None or room.free + self.freed(self.gone) >= policy.free
            if not enough and i not in self.gone:
                self.gone.append(i)
        for i in self.gone[len(before) :]:  # of whom nothing depends
            without = [each for each in self.gone if each != i]
            if self.freed(without) == self.freed(self.gone):
                self.gone = without
        return self.gone


@given(DATASETS, THINGS, POLICIES, st.integers(0, 20))
def test_the_choice_is_that_of_a_naive_one(
    datasets: list[tuple[int, set[int], bool]],
    things: list[tuple[int, bool, bool]],
    policy: Policy,
    room: int,
) -> None:
    """Things are (bytes, is here, frees its bytes)."""
    now = 100 * DAY
    inventory = Inventory.__new__(Inventory)
    inventory.sizes = array("q", [size for size, _, _ in things])
    inventory.present = bytearray(here for _, here, _ in things)
    inventory.holders = array("I", [sum(n in each[1] for each in datasets) for n in range(8)])
    holdings = [
        Holding(
            str(i), Reference(str(i), "r", "1"), now - age * DAY, 0, array("I", sorted(needs)), ()
        )
        for i, (age, needs, _) in enumerate(datasets)
    ]
    order = sorted(range(len(holdings)), key=lambda i: (holdings[i].last_used, i))
    naive = Naive(datasets, things)
    total = sum(size for n, (size, here, _) in enumerate(things) if here and inventory.holders[n])
    there = Room(total + room, room)

    choice = Choice(
        inventory,
        lambda mark: "kept" if datasets[int(mark)][2] else "",
        lambda n: things[n][0] if things[n][2] else 0,
    )
    choice.run(policy, [holdings[i] for i in order], there, now)

    expected = naive.run(policy, order, there)
    assert [int(each.holding.mark) for each in choice.chosen] == expected
    assert sum(each.bytes for each in choice.chosen) == naive.bytes(expected)
    assert sum(each.freed for each in choice.chosen) == naive.freed(expected)
    assert all(datasets[int(Reference.parse(each.name).name)][2] for each in choice.kept)


def test_a_cache_at_another_place_is_as_good(stock: Stock, home: Path) -> None:
    """Nothing in a plan depends on how the path of the cache was written."""
    fill(stock, 2)
    os.symlink(stock.root, home / "elsewhere")
    other = Cache(home / "elsewhere", settings=stock.settings)
    assert gone(other.prune(other.plan_prune(all=True))) == ["n0", "n1"]
    assert kept(stock.cache.plan_prune(all=True)) == {}
