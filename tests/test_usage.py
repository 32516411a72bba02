"""What the cache takes: by dataset and in groups, shared bytes once; who holds what; counters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import UsageError
from dscache.results import Usage
from dscache.store import Store
from dscache.store.counters import Counts
from dscache.store.owner import host_name
from dscache.store.roots import PROJECT, needs
from tests.archives import File, tar_of
from tests.children import forked
from tests.making import Shelf, artifact, content
from tests.origin import Site, origin
from tests.stocked import DAY, Stock, used
from tests.stores import files_below, publish

ONE, TWO, SHARED = content(10_000, 1), content(20_000, 2), content(5_000, 3)
TAR = tar_of(File("a.bin", content(5000, 4)), File("deep/b.bin", content(6000, 5)))


@pytest.fixture
def stock(home: Path) -> Stock:
    made = Stock(home)
    made.put("one", {"one.bin": ONE, "shared.bin": SHARED}, age=40 * DAY)
    made.put("two", {"two.bin": TWO, "same.bin": SHARED, "twin.bin": SHARED}, age=3 * DAY)
    return made


def groups(found: Usage) -> list[tuple[str, int, int]]:
    return [(each.key, each.bytes, each.datasets) for each in found.groups]


def test_shared_bytes_count_once(stock: Stock) -> None:
    found = stock.cache.usage()
    assert (found.root, found.bytes, found.blobs) == (str(stock.root), 35_000, 3)
    assert found.saved_bytes == 5000
    assert [(each.name, each.bytes, each.shared_bytes) for each in found.datasets] == [
        ("two", 25_000, 5000),
        ("one", 15_000, 5000),
    ]
    two, one = found.datasets
    assert (one.registry, one.version, one.held_by) == ("shelf", "1", ())
    assert one.last_used == stock.record("one").stat().st_mtime
    assert two.last_used - one.last_used == pytest.approx(37 * DAY, abs=60)
    assert found.groups == ()


def test_of_an_archive_its_files_count_too(home: Path) -> None:
    stock = Stock(home)
    stock.put("tar", {"a.tar": TAR}, unpack="tar")
    assert stock.cache.usage().bytes == len(TAR) + 11_000
    stock.prune(archives=True)
    found = stock.cache.usage()
    assert (found.bytes, found.blobs, found.datasets[0].bytes) == (11_000, 0, 11_000)


def test_what_no_dataset_has_counts_in_all(stock: Stock) -> None:
    publish(stock.store, content(700, 8))
    found = stock.cache.usage()
    assert (found.bytes, found.blobs, found.saved_bytes) == (35_700, 4, 5000)


def test_an_empty_cache_takes_nothing(home: Path) -> None:
    found = Stock(home).cache.usage("age")
    assert (found.bytes, found.blobs, found.datasets, found.groups) == (0, 0, (), ())
    assert found.counts == Counts()


def test_who_holds_it_is_said(stock: Stock, home: Path) -> None:
    stock.cache.pin("one")
    with stock.cache.hold("one", into=home / "mine", link="symlink"), stock.user("one") as process:
        used(process)
        held = {each.name: each.held_by for each in stock.cache.usage().datasets}
    assert held["two"] == ()
    pinned, folder, *processes = held["one"]
    assert (pinned, folder) == ("it is pinned", f"{home / 'mine'} (symbolic links) needs it")
    host = os.uname().nodename
    assert set(processes) == {
        f"process {pid} on {host} uses it" for pid in (os.getpid(), process.pid)
    }


def test_groups_by_registry(stock: Stock, home: Path) -> None:
    other = Shelf(home / "other", "other")
    (other.folder / "b.bin").write_bytes(TWO)
    other.add("b", [artifact("b.bin", TWO, "b.bin")])
    registries = {**stock.settings.registries, "other": str(other.folder)}
    stock.cache = type(stock.cache)(settings=stock.settings.override(registries=registries))
    with stock.cache.hold("other/b"):
        pass
    assert groups(stock.cache.usage("registry")) == [("shelf", 35_000, 2), ("other", 20_000, 1)]


def test_groups_by_project(stock: Stock, home: Path) -> None:
    for name, names in (("p", ["one", "two"]), ("q", ["two"])):
        (home / name).mkdir()
        lock = home / name / "dscache.lock"
        lock.touch()
        stock.store.roots.register(needs(PROJECT, str(lock), [stock.mark(each) for each in names]))
    stock.put("free", {"free.bin": content(400, 9)})
    assert groups(stock.cache.usage("project")) == [
        (f"the project {home / 'p'}", 35_000, 2),
        (f"the project {home / 'q'}", 25_000, 1),
        ("no project", 400, 1),
    ]


def test_groups_by_age(stock: Stock) -> None:
    for name, age in (("now", 0), ("week", 6 * DAY), ("year", 300 * DAY), ("old", 500 * DAY)):
        stock.put(name, {"a.bin": content(int(100 + age / DAY), 9)}, age=age)
    assert groups(stock.cache.usage("age")) == [
        ("not used for up to a week", 25_000 + 106, 2),
        ("not used for up to a year", 15_000 + 400, 2),
        ("longer", 600, 1),
        ("not used for up to a day", 100, 1),
    ]


def test_there_are_no_other_groups(stock: Stock) -> None:
    with pytest.raises(UsageError, match="'size' is none of dataset, registry"):
        stock.cache.usage("size")


# --- Counters -------------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/one.bin": ONE, "/two.bin": TWO}) as found:
        yield found


@pytest.fixture
def desk(home: Path, site: Site) -> Stock:
    made = Stock(home)
    made.offer("one", artifact("one.bin", ONE, site.url("/one.bin")))
    made.offer("two", artifact("two.bin", TWO, site.url("/two.bin")))
    made.offer("same", artifact("other.bin", ONE, site.url("/one.bin")))
    return made


def fetched(desk: Stock, *names: str) -> Callable[[], None]:
    def fetch() -> None:
        for name in names:
            desk.fetch(name).unwrap()

    return fetch


def test_hits_count_once_for_each_process_and_dataset(desk: Stock) -> None:
    assert desk.cache.usage().counts == Counts()
    forked(fetched(desk, "one", "one", "two"))
    assert desk.cache.usage().counts == Counts(hits=0, downloaded=30_000)
    for _ in range(3):
        forked(fetched(desk, "one", "one", "two", "one"))
    assert desk.cache.usage().counts == Counts(hits=6, downloaded=30_000, saved=90_000)


def test_what_was_here_under_another_name_was_saved(desk: Stock) -> None:
    forked(fetched(desk, "one", "same"))
    assert desk.cache.usage().counts == Counts(downloaded=10_000, saved=10_000)


def test_counters_survive_pruning(desk: Stock) -> None:
    forked(fetched(desk, "one"))
    desk.prune(all=True)
    forked(fetched(desk, "one"))
    assert desk.cache.usage().counts.downloaded == 20_000


def test_many_counts_become_one(home: Path) -> None:
    desk = Stock(home)
    counters = desk.store.counters
    for number in range(8000):
        counters.add(Counts(hits=1, downloaded=number))
    (path,) = files_below(desk.root / "counters")
    assert path.stat().st_size > 64 << 10
    total = counters.total()
    assert total == Counts(hits=8000, downloaded=sum(range(8000)))
    counters.fold()
    assert counters.total() == total
    assert len(path.read_text().splitlines()) == 1
    counters.fold()
    assert counters.total() == total


def test_the_counters_of_all_hosts_are_summed_up(desk: Stock) -> None:
    desk.store.counters.add(Counts(1, 2, 3))
    (desk.root / "counters/elsewhere").write_text("10 20 30\n100 200 300\n")
    assert desk.cache.usage().counts == Counts(111, 222, 333)
    assert (desk.root / "counters" / host_name()).exists()


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"1 2\n", b"1 2 x\n", b"1 2 3 4\n", b"-1 2 3\n", bytes(4096), b"1 2 "],
)
def test_torn_counters_lose_only_what_is_torn(desk: Stock, text: bytes) -> None:
    path = desk.root / "counters/elsewhere"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1 2 3\n" + text + b"\n4 5 6\n")
    assert desk.cache.usage().counts == Counts(5, 7, 9)


def test_a_cache_that_cannot_be_written_counts_nothing(desk: Stock) -> None:
    forked(fetched(desk, "one"))
    folder = desk.root / "counters"
    for path in files_below(folder):
        path.unlink()
    folder.rmdir()
    folder.write_bytes(b"in the way")
    forked(fetched(desk, "one"))
    desk.store.counters.fold()


# --- The command ----------------------------------------------------------------------------------


def command(stock: Stock, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dscache", "usage", *words],
        env={**os.environ, **stock.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_document(stock: Stock) -> None:
    stock.cache.pin("one")
    found: dict[str, Any] = json.loads(command(stock, "--json"))
    assert found.keys() == {"root", "bytes", "blobs", "saved_bytes", "counters", "datasets"}
    assert found["counters"].keys() == {"hits", "downloaded", "saved"}
    one = found["datasets"][1]
    assert one.pop("last_used").endswith("+00:00")
    assert one == {
        "name": "one",
        "version": "1",
        "registry": "shelf",
        "bytes": 15_000,
        "shared_bytes": 5000,
        "held_by": ["it is pinned"],
    }
    grouped = json.loads(command(stock, "--json", "--by", "registry"))
    assert grouped["groups"] == [{"key": "shelf", "bytes": 35_000, "datasets": 2}]
    assert [each["name"] for each in grouped["datasets"]] == ["two", "one"]


def test_the_largest_stands_first_with_the_longest_bar(stock: Stock) -> None:
    first, second, *rest = command(stock).splitlines()
    assert first.startswith("shelf/two@1")
    assert second.startswith("shelf/one@1")
    assert first.count("█") == 24
    assert second.count("█") == 14
    assert "5 kB shared" in first
    assert "35 kB in 3 files below" in rest[0]
    assert "5 kB saved by sharing" in rest[0]
    assert rest[1].startswith("0 fetches found all they wanted here")
    assert command(stock, "--by", "registry").splitlines()[0].split()[-2:] == ["2", "datasets"]


def test_usage_goes_on_while_things_vanish(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a cache that somebody else prunes at the same time."""
    publish(stock.store, content(700, 8))
    survey = type(stock.store.records).survey

    def surveyed(self: Any, *arguments: Any) -> Any:
        yield from survey(self, *arguments)
        forked(pruned)

    def pruned() -> None:
        monkeypatch.undo()  # the prune is not to be pruned
        stock.prune(all=True, max_size=0)

    monkeypatch.setattr(type(stock.store.records), "survey", surveyed)
    assert len(stock.cache.usage("age").datasets) == 2


def test_the_store_counts_by_host(home: Path) -> None:
    store = Store(str(home / "cache"))
    store.counters.add(Counts())
    assert not (home / "cache").exists()
