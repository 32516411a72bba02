"""What no prune takes: what is pinned, held, needed by a project, or cannot be understood."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from dscache.cli import cli
from dscache.errors import NotCached, StorageError
from dscache.events import Event, Waiting
from dscache.results import Plan
from dscache.store import Store
from dscache.store.owner import this_process
from tests.children import forked, interpreter, unprivileged
from tests.downloads import moments
from tests.making import artifact, content, sha256
from tests.origin import Drip, origin
from tests.stocked import DAY, Stock, aged, gone, kept, used
from tests.stores import damaged, faults_of, files_below

ONE, TWO = content(10_000, 1), content(10_000, 2)
FAR = "999999TB"


@pytest.fixture
def stock(home: Path) -> Stock:
    return Stock(home)


@pytest.fixture
def data(stock: Stock) -> Stock:
    """With one dataset."""
    stock.put("data", {"one.bin": ONE, "two.bin": TWO}, age=400 * DAY)
    return stock


def at(stock: Stock, seconds: float, act: Callable[[], Any]) -> Any:
    """What comes of it so many seconds later, by the clock of the cache's filesystem."""
    clock = Store.clock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "clock", lambda self: clock(self) + seconds)
        return act()


# --- Pins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", [{"all": True}, {"older_than": "1d"}, {"max_size": 0}, {"free": FAR}], ids=str
)
def test_what_is_pinned_stays_and_the_plan_says_so(data: Stock, policy: dict[str, Any]) -> None:
    assert data.cache.pin("data").pinned
    assert [each.pinned for each in data.cache.cached()] == [True]
    done = data.prune(**policy)
    assert (gone(done), kept(done)) == ([], {"data": "it is pinned"})
    assert done.kept[0].bytes == 20_000
    assert not data.cache.unpin("data").pinned
    assert gone(data.prune(**policy)) == ["data"]


def test_a_pin_counts_for_one_version(stock: Stock) -> None:
    stock.put("data", {"a.bin": ONE}, version="1")
    stock.put("data", {"a.bin": TWO}, version="2")
    assert stock.cache.pin("data@1").version == "1"
    assert stock.cache.pin("shelf/data").version == "2"
    stock.cache.unpin("data@1")
    done = stock.prune("data")
    assert (gone(done), kept(done)) == (["data"], {"data@2": "it is pinned"})
    with pytest.raises(NotCached):
        stock.cache.pin("data@1")


def test_what_is_not_here_cannot_be_pinned(stock: Stock) -> None:
    with pytest.raises(NotCached):
        stock.cache.pin("data")
    stock.put("data", {"a.bin": ONE}, version="1")
    stock.describe("data", {"a.bin": TWO}, version="2")
    with pytest.raises(NotCached, match="only 1"):
        stock.cache.pin("data")


def test_what_no_registry_knows_any_more_can_be_pinned(data: Stock) -> None:
    for file in data.shelf.folder.glob("data*.toml"):
        file.unlink()
    assert data.cache.pin("data").pinned
    assert kept(data.prune("data")) == {"data": "it is pinned"}


def test_another_name_of_a_dataset_pins_it(data: Stock) -> None:
    data.shelf.write("figures.toml", {"see": "data"})
    assert data.cache.pin("figures").name == "data"
    assert kept(data.prune("data")) == {"data": "it is pinned"}
    assert not data.cache.unpin("figures@1").pinned


def test_a_pin_that_comes_while_it_is_removed_is_refused(data: Stock) -> None:
    """Who pins waits for the removal that is under way, and is told what came of it."""
    mark = data.mark("data")
    pin = data.root / "roots/pins" / mark
    begun = threading.Event()

    def remove() -> None:
        with data.store.removals.said([mark]):
            begun.set()
            next(_ for _ in moments() if pin.exists())
            data.store.records.drop(mark)

    thread = threading.Thread(target=remove)
    thread.start()
    begun.wait()
    with pytest.raises(NotCached):
        data.cache.pin("data")
    thread.join()
    assert not pin.exists()


def test_the_commands_pin_and_unpin(data: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in data.environment.items():
        monkeypatch.setenv(name, value)
    run = CliRunner().invoke
    said = json.loads(run(cli, ["pin", "data", "--json"]).stdout)
    assert said == {"name": "data", "version": "1", "pinned": True}
    assert [row["pinned"] for row in json.loads(run(cli, ["list", "--json"]).stdout)] == [True]
    found = run(cli, ["prune", "--all", "--json"])
    assert (found.exit_code, json.loads(found.stdout)["removed"]) == (0, [])
    assert run(cli, ["unpin", "data"]).stderr == "shelf/data@1: not pinned any more\n"
    assert isinstance(run(cli, ["pin", "none"]).exception, NotCached)


# --- Processes ------------------------------------------------------------------------------------


def here() -> str:
    return f"process {os.getpid()} on {os.uname().nodename} uses it"


def test_what_is_held_stays_to_the_end_of_the_block_and_no_longer(data: Stock) -> None:
    with data.cache.hold("data") as path:
        done = data.prune(all=True)
        assert kept(done) == {"data": here()}
        with data.cache.hold("data"):
            pass
        assert gone(data.prune(all=True)) == []
        assert (path / "one.bin").read_bytes() == ONE
    assert files_below(data.root / "leases") == []
    assert gone(data.prune(all=True)) == ["data"]


def test_what_is_held_ends_with_an_error_too(data: Stock) -> None:
    with suppress(KeyError), data.cache.hold("data"):
        raise KeyError
    assert gone(data.prune(all=True)) == ["data"]


def test_hold_fetches_what_is_missing(stock: Stock, home: Path) -> None:
    stock.describe("data", {"one.bin": ONE})
    stock.describe("folder", {"one.bin": ONE, "deep/two.bin": TWO})
    with stock.cache.hold("data") as path, stock.cache.hold("folder", files="deep/*") as other:
        assert path.read_bytes() == ONE
        assert set(kept(stock.prune(all=True))) == {"data", "folder"}
        assert (other / "deep/two.bin").read_bytes() == TWO
    with stock.cache.hold("data", into=home / "mine") as path:
        assert path == home / "mine/one.bin"


def test_hold_does_not_let_go_of_what_the_process_was_given(data: Stock) -> None:
    def child() -> list[str]:
        data.cache.fetch("data")
        with data.cache.hold("data"):
            pass
        return gone(data.prune(all=True))

    assert forked(child) == []


@pytest.mark.parametrize("verb", ["fetch", "path"])
def test_what_a_process_was_given_stays_until_it_ends(data: Stock, verb: str) -> None:
    def child() -> tuple[list[str], bool]:
        path = getattr(data.cache, verb)("data")
        done = data.prune(all=True)
        assert kept(done) == {"data": here()}
        return gone(done), (path / "one.bin").read_bytes() == ONE

    assert forked(child) == ([], True)
    assert gone(data.prune(all=True)) == ["data"]


@pytest.mark.parametrize("end", ["in order", "killed"])
def test_another_process_holds_while_it_lives(data: Stock, end: str) -> None:
    with data.user("data") as process:
        (path,) = used(process)
        done = data.prune(all=True)
        assert kept(done)["data"].startswith(f"process {process.pid} on ")
        assert (path / "one.bin").read_bytes() == ONE
        if end == "killed":
            process.send_signal(signal.SIGKILL)
        process.communicate()
        plan = data.cache.plan_prune(all=True)
        assert gone(plan) == ["data"]
        left = [row.reason for row in plan.removed if row.kind == "lease"]
        ended = kept(done)["data"].replace("uses it", "has ended")
        assert left == ([ended] if end == "killed" else [])
        data.cache.prune(plan)
    assert files_below(data.root / "leases") == []
    assert data.blobs == 0


def test_a_zombie_holds_nothing(data: Stock) -> None:
    """Its parent has not asked for its exit code yet, but it will use nothing any more."""
    with data.user("data") as process:
        used(process)
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert gone(data.prune(all=True)) == ["data"]


def test_a_fork_of_a_process_holds_for_itself(data: Stock) -> None:
    data.cache.fetch("data")

    def child() -> list[str]:
        data.cache.fetch("data")
        return kept(data.cache.plan_prune(all=True))["data"].split(", ")

    assert len(forked(child)) == 2
    assert len(kept(data.cache.plan_prune(all=True))["data"].split(", ")) == 1


def lease_of(stock: Stock, name: str) -> Path:
    """The lease folder of the process that holds a dataset."""
    (found,) = (stock.root / "leases").glob(f"*/{stock.mark(name)}")
    return found.parents[1]


@pytest.fixture
def leased(data: Stock) -> Iterator[Path]:
    """The lease of a process that lives as long as the test."""
    with data.user("data") as process:
        used(process)
        yield lease_of(data, "data")


def rewrite(lease: Path, **facts: Any) -> None:
    """Let a lease be that of another process."""
    path = lease / "_owner.json"
    owner = json.loads(path.read_bytes())
    path.write_text(json.dumps(owner | facts))


ELSEWHERE = {
    "host": {"boot": {"host": "elsewhere", "id": "b" * 36}},
    "namespace": {"namespace": "pid:[1]"},
    "unknown boot": {"boot": None},
}


@pytest.mark.parametrize("facts", ELSEWHERE.values(), ids=ELSEWHERE)
def test_of_another_host_or_container_time_ends_a_lease(
    data: Stock, leased: Path, facts: dict[str, Any]
) -> None:
    rewrite(leased, **facts)
    assert gone(at(data, 6 * DAY, lambda: data.prune(all=True))) == []
    plan = at(data, 8 * DAY, lambda: data.cache.plan_prune(all=True))
    assert gone(plan) == ["data"]
    assert [row.kind for row in plan.removed if row.target == str(leased)] == ["lease"]
    aged(leased, 8 * DAY)
    (leased / data.mark("data")).touch()  # it was used again
    assert gone(data.prune(all=True)) == []
    aged(leased, 8 * DAY)
    assert gone(data.prune(all=True)) == ["data"]
    assert not leased.exists()


def test_the_time_is_a_setting(home: Path) -> None:
    stock = Stock(home, lease_ttl="1h")
    stock.put("data", {"one.bin": ONE})
    with stock.user("data") as process:
        used(process)
        rewrite(lease_of(stock, "data"), namespace="pid:[1]")
        assert gone(at(stock, 3000, lambda: stock.prune(all=True))) == []
        assert gone(at(stock, 4000, lambda: stock.prune(all=True))) == ["data"]


@pytest.mark.parametrize(
    "facts",
    [
        {"boot": {"host": os.uname().nodename, "id": "another"}},
        {"start": "1"},
        {"pid": 2**30},
    ],
    ids=["another boot", "another process of that pid", "no such pid"],
)
def test_what_has_ended_here_ends_at_once(data: Stock, leased: Path, facts: dict[str, Any]) -> None:
    if not this_process().start:
        pytest.skip("start times of processes are not told here")
    rewrite(leased, **facts)
    assert gone(data.prune(all=True)) == ["data"]


def test_a_torn_lease_counts_until_it_is_old(data: Stock, leased: Path) -> None:
    whole = (leased / "_owner.json").read_bytes()
    for wrong in list(damaged(whole))[:: len(whole) // 4]:
        (leased / "_owner.json").write_bytes(wrong)
        plan = data.cache.plan_prune(all=True)
        assert kept(plan) == {"data": "a process that cannot be named uses it"}
    (leased / "_owner.json").unlink()
    assert gone(data.prune(all=True)) == []
    aged(leased, 8 * DAY)
    assert gone(data.prune(all=True)) == ["data"]


def test_torn_digests_protect_what_can_be_read_of_them(stock: Stock) -> None:
    path = stray(stock, ONE)
    sha256 = path.parent.name + path.name
    with stock.store.leases.new() as lease:
        lease.announce([])
        lease._name_owner()
        (Path(lease.folder) / "_digests").write_bytes(
            f"md5:12\nsha256:{sha256}\nnonsense\n\xff:\nsha256:{sha256[:9]}".encode("latin-1")
        )
        assert "bringing" in kept(stock.prune())[f"sha256:{sha256}"]
    assert gone(stock.prune(), "blob") == [f"sha256:{sha256}"]


@pytest.mark.parametrize("folder", ["leases", "roots/symlinked"])
def test_what_may_not_be_read_keeps_everything(data: Stock, home: Path, folder: str) -> None:
    """A lease or root of somebody else, whose umask keeps us out."""
    with data.cache.hold("data", into=home / "mine", link="symlink"):
        path = next((data.root / folder).iterdir())
        path.chmod(0)
        try:
            plan = unprivileged(lambda: data.prune(all=True))
        finally:
            path.chmod(0o755)
    assert gone(plan) == []
    assert "ermission denied" in kept(plan)["data"]


# --- Projects and folders -------------------------------------------------------------------------


def placed(stock: Stock, folder: Path, link: str) -> None:
    with stock.cache.hold("data", into=folder, link=link):
        pass


def test_a_folder_with_symbolic_links_needs_what_it_shows(data: Stock, home: Path) -> None:
    placed(data, home / "mine", "symlink")
    assert kept(data.prune(all=True)) == {"data": f"{home / 'mine'} (symbolic links) needs it"}
    assert (home / "mine/one.bin").read_bytes() == ONE


def test_a_folder_with_hard_links_needs_nothing_more(data: Stock, home: Path) -> None:
    placed(data, home / "mine", "hardlink")
    done = data.prune(all=True)
    assert gone(done) == ["data"]
    assert f"linked from {home / 'mine'} (hard links)" in done.removed[0].reason
    assert (home / "mine/one.bin").read_bytes() == ONE


def test_a_folder_with_copies_is_no_matter(data: Stock, home: Path) -> None:
    placed(data, home / "mine", "copy")
    done = data.prune(all=True)
    assert "linked" not in done.removed[0].reason
    assert done.freed_bytes >= 20_000


def test_a_folder_may_need_several(stock: Stock, home: Path) -> None:
    for name, data in (("a", ONE), ("b", TWO)):
        stock.put(name, {f"{name}.bin": data})
        with stock.cache.hold(name, into=home / "mine", link="symlink"):
            pass
    assert set(kept(stock.prune(all=True))) == {"a", "b"}
    assert len(files_below(stock.root / "roots")) == 1


def root_of(stock: Stock) -> dict[str, Any]:
    (path,) = files_below(stock.root / "roots")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_a_root_that_is_gone_counts_for_a_grace_since_it_was_noticed(
    data: Stock, home: Path
) -> None:
    placed(data, home / "mine", "symlink")
    shutil.rmtree(home / "mine")
    data.cache.plan_prune(all=True)
    assert root_of(data)["missing_since"] is None  # planning writes nothing
    assert "gone for 0 s" in kept(data.prune(all=True))["data"]
    since = root_of(data)["missing_since"]
    done = at(data, 29 * DAY, lambda: data.prune(all=True))
    assert "gone for 29 d, needs it" in kept(done)["data"]
    assert root_of(data)["missing_since"] == since
    plan = at(data, 31 * DAY, lambda: data.cache.plan_prune(all=True))
    assert [(row.kind, row.name) for row in plan.removed if row.kind == "root"] == [
        ("root", str(home / "mine"))
    ]
    assert at(data, 31 * DAY, lambda: data.cache.prune(plan)) == plan
    assert files_below(data.root / "roots") == []
    assert gone(plan) == ["data"]


def test_a_root_that_comes_back_counts_anew(data: Stock, home: Path) -> None:
    placed(data, home / "mine", "symlink")
    (home / "mine").rename(home / "not mounted")
    data.prune()
    assert root_of(data)["missing_since"] is not None
    (home / "not mounted").rename(home / "mine")
    data.prune()
    assert root_of(data)["missing_since"] is None
    (home / "mine").rename(home / "not mounted")
    data.prune()
    plan = at(data, 31 * DAY, lambda: data.cache.plan_prune(all=True))
    assert gone(plan, "root", "dataset") == [str(home / "mine"), "data"]
    (home / "not mounted").rename(home / "mine")  # between planning and doing it
    done = at(data, 31 * DAY, lambda: data.cache.prune(plan))
    assert gone(done, "root", "dataset") == []
    assert set(kept(done)) == {str(home / "mine"), "data"}
    assert (home / "mine/one.bin").read_bytes() == ONE


def test_a_torn_root_keeps_everything(data: Stock, home: Path) -> None:
    placed(data, home / "mine", "symlink")
    (path,) = files_below(data.root / "roots")
    path.write_bytes(path.read_bytes()[:-10])
    plan = data.cache.plan_prune(all=True)
    assert gone(plan) == []
    assert str(path) in kept(plan)["data"]
    assert "makes no sense" in kept(plan)["data"]
    data.cache.prune(plan)
    assert data.has("data")
    path.unlink()
    assert gone(data.prune(all=True)) == ["data"]


def test_a_torn_root_of_hard_links_names_no_folder_until_the_next_placing(
    data: Stock, home: Path
) -> None:
    placed(data, home / "mine", "hardlink")
    (path,) = files_below(data.root / "roots")
    path.write_bytes(path.read_bytes()[:-10])
    (row,) = [row for row in data.cache.plan_prune(all=True).removed if row.kind == "dataset"]
    assert "linked from elsewhere" in row.reason
    placed(data, home / "mine", "hardlink")
    done = data.prune(all=True)
    assert gone(done) == ["data"]
    assert f"linked from {home / 'mine'}" in done.removed[0].reason
    assert (home / "mine/one.bin").read_bytes() == ONE


def test_a_root_that_is_torn_after_planning_keeps_everything(data: Stock, home: Path) -> None:
    plan = data.cache.plan_prune(all=True)
    placed(data, home / "mine", "symlink")
    (path,) = files_below(data.root / "roots")
    path.write_bytes(b"{")
    assert "makes no sense" in kept(data.cache.prune(plan))["data"]
    assert data.has("data")


# --- Records --------------------------------------------------------------------------------------


def tear(stock: Stock, name: str) -> None:
    path = stock.record(name)
    path.write_bytes(path.read_bytes()[:-10])


def test_a_torn_record_keeps_all_that_it_may_need(data: Stock) -> None:
    data.put("torn", {"other.bin": content(9000, 9)})
    tear(data, "torn")
    for path in files_below(data.root / "blobs"):
        os.utime(path, (1e9, 1e9))
    before = files_below(data.root)
    for policy in ({}, {"all": True}, {"max_size": 0}):
        done = data.prune(**policy)
        assert done.removed == ()
        assert "cannot be read" in kept(done)["torn@1+" + data.record("torn").name[7:15]]
    assert kept(done)["data"].startswith("a record cannot be read, which may need it: ")
    assert files_below(data.root) == before
    with data.cache.hold("torn"):  # which makes it anew
        pass
    assert gone(data.prune(all=True)) == ["data", "torn"]


def test_a_record_that_is_torn_after_planning_keeps_bytes(data: Stock) -> None:
    data.put("torn", {"other.bin": content(9000, 9), "one.bin": ONE})
    plan = data.cache.plan_prune(["data"])
    tear(data, "torn")
    data.cache.prune(plan)
    assert data.blobs == 3


# --- What has no name yet -------------------------------------------------------------------------


def stray(stock: Stock, data: bytes) -> Path:
    """A blob that no record names, and that is old."""
    stock.put("stray", {"a.bin": data})
    (path,) = (path for path in files_below(stock.root / "blobs") if path.read_bytes() == data)
    stock.record("stray").unlink()
    shutil.rmtree(stock.root / "datasets/shelf/stray")
    os.utime(path, (1e9, 1e9))
    return path


def test_what_no_record_names_yet_stays_for_the_grace(home: Path) -> None:
    stock = Stock(home, prune_grace="2m")
    path = stray(stock, ONE)
    os.utime(path)
    done = stock.prune(all=True)
    reason = "no record names it yet, and it is younger than 2 min"
    assert kept(done) == {f"sha256:{path.parent.name}{path.name}": reason}
    assert at(stock, 100, lambda: stock.prune(all=True)).removed == ()
    assert gone(at(stock, 130, stock.prune), "blob") == [f"sha256:{path.parent.name}{path.name}"]


def test_nothing_that_a_fetch_is_bringing_goes(home: Path) -> None:
    """A real download, slow: pruned all the time, with no grace at all, and it comes to its end."""
    small = {f"{n}.bin": content(3000 + n, n) for n in range(6)}
    large = {"large.bin": content(3 << 20, 50), "last.bin": content(2 << 20, 51)}
    files = small | large
    with origin({f"/{name}": data for name, data in files.items()}) as site:
        for name in large:
            site.fault(f"/{name}", Drip(64 << 10, 0.01))
        stock = Stock(home, prune_grace=0, part_max_age=0, jobs=1)
        stock.offer("data", *(artifact(p, data, site.url(f"/{p}")) for p, data in files.items()))
        with stock.user("data") as process:
            rounds = 0
            for _ in moments():
                stock.prune(all=True)
                rounds += bool(files_below(stock.root / "parts"))
                if list((stock.root / "records/shelf").glob("data@*")):
                    break
                assert process.poll() is None, process.communicate()[1]
            (path,) = used(process)
            stock.prune(all=True)
            assert {name: (path / name).read_bytes() for name in files} == files
            assert rounds > 3
    assert faults_of(stock.root) == []


def test_one_of_two_imported_files_survives(home: Path) -> None:
    stock = Stock(home, prune_grace=0)
    manual = {"manual": "Ask for it.", "urls": None}
    stock.shelf.add(
        "data", [artifact("one.bin", ONE, **manual), artifact("two.bin", TWO, **manual)]
    )
    (home / "one").write_bytes(ONE)
    (home / "two").write_bytes(TWO)

    def take(file: str) -> str:
        return forked(lambda: stock.cache.import_file("data", home / file).status)

    assert take("one") == "incomplete"
    os.utime(files_below(stock.root / "blobs")[0], (1e9, 1e9))
    assert gone(stock.prune(), "blob", "dataset") == []
    assert stock.blobs == 1
    assert take("two") == "linked"
    assert gone(stock.prune(older_than="1d"), "blob", "dataset") == []
    assert {path.read_bytes() for path in files_below(stock.root / "blobs")} == {ONE, TWO}


def test_the_list_of_a_dataset_with_a_manifest_survives(home: Path) -> None:
    stock = Stock(home, prune_grace=0)
    lines = [
        json.dumps({"path": path, "hash": sha256(data), "size": len(data)})
        for path, data in (("one.bin", ONE), ("two.bin", TWO))
    ]
    listing = ("\n".join(lines) + "\n").encode()
    for name, data in (("list.jsonl", listing), ("one.bin", ONE), ("two.bin", TWO)):
        (stock.shelf.folder / name).write_bytes(data)
    facts = {"hash": sha256(listing), "urls": ["list.jsonl"], "base_urls": ["./"]}
    stock.shelf.write("data.toml", {"version": "1", "manifest": facts})
    with stock.cache.hold("data"):
        pass
    for path in files_below(stock.root / "blobs"):
        os.utime(path, (1e9, 1e9))
    assert gone(stock.prune(), "blob") == []
    assert listing in {path.read_bytes() for path in files_below(stock.root / "blobs")}
    assert gone(stock.prune(all=True)) == ["data"]
    assert stock.blobs == 0


# --- auto_prune -----------------------------------------------------------------------------------


def automatic(home: Path, size: str = "25kB") -> Stock:
    return Stock(home, auto_prune=True, max_size=size)


def test_a_fetch_keeps_to_the_budget_and_says_what_went(home: Path) -> None:
    stock = automatic(home)
    for number in range(3):
        stock.put(f"n{number}", {"a.bin": content(10_000, number)}, age=(9 - number) * DAY)
    stock.describe("new", {"a.bin": content(10_000, 8)})
    stock.events.clear()
    assert forked(lambda: (stock.fetch("new").status, stock.notices)) == (
        "downloaded",
        ["to keep to `max_size`, pruned shelf/n1@1; freed 12.3 kB"],
    )
    assert [stock.has(name) for name in ("n0", "n1", "n2", "new")] == [False, False, True, True]


def test_a_fetch_prunes_nothing_that_this_process_was_given(home: Path) -> None:
    stock = automatic(home)

    def child() -> list[bool]:
        for number in range(5):
            stock.describe(f"n{number}", {"a.bin": content(10_000, number)})
            stock.fetch(f"n{number}").unwrap()
        assert stock.notices == []
        return [stock.has(f"n{number}") for number in range(5)]

    assert forked(child) == [True] * 5


def test_a_hit_prunes_nothing(home: Path) -> None:
    stock = automatic(home)
    stock.put("a", {"a.bin": ONE}, age=9 * DAY)
    stock.put("b", {"a.bin": TWO}, age=DAY)
    stock.settings = stock.settings.override(max_size=0)
    assert forked(lambda: stock.fetch("a").status) == "cached"
    assert stock.has("b")


def test_without_the_setting_nothing_is_pruned(home: Path) -> None:
    stock = Stock(home, max_size="5kB")
    for number in range(3):
        stock.put(f"n{number}", {"a.bin": content(10_000, number)}, age=(9 - number) * DAY)
    assert all(stock.has(f"n{number}") for number in range(3))


def test_a_prune_that_fails_spoils_no_fetch(home: Path) -> None:
    stock = automatic(home, "5kB")
    stock.put("old", {"a.bin": ONE}, age=9 * DAY)
    stock.describe("new", {"a.bin": TWO})

    def child() -> tuple[str, list[str]]:
        from dscache import pruning

        def fail(*_: Any) -> Plan:
            raise StorageError("the disk is broken")

        pruning.execute = fail  # type: ignore[assignment]
        return stock.fetch("new").status, stock.notices

    assert forked(child) == ("downloaded", ["nothing was pruned: the disk is broken"])


# --- Who wants what is just being removed ---------------------------------------------------------


def test_a_fetch_waits_for_what_is_being_removed_and_then_brings_it(data: Stock) -> None:
    """A prune that looked at the leases before the fetch had written its own."""
    mark = data.mark("data")
    begun, waited = threading.Event(), threading.Event()

    def remove() -> None:
        with data.store.removals.said([mark]):
            begun.set()
            waited.wait()
            data.store.records.drop(mark)

    def hear(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Waiting):
            waited.set()

    heard: list[Event] = []
    data.hear = hear
    thread = threading.Thread(target=remove)
    thread.start()
    begun.wait()
    with data.cache.hold("data", progress=hear) as path:
        thread.join()
        assert (path / "one.bin").read_bytes() == ONE
        assert kept(data.prune(all=True)) == {"data": here()}
    (waiting,) = (event for event in heard if isinstance(event, Waiting))
    assert waiting.what == "shelf/data@1"
    assert waiting.holder == here().removesuffix(" uses it")


def test_a_removal_that_does_not_end_is_told(home: Path) -> None:
    stock = Stock(home, lock_timeout=0.1)
    stock.put("data", {"one.bin": ONE})
    with (
        stock.store.removals.said([stock.mark("data")]),
        pytest.raises(StorageError, match="for a prune by process") as caught,
        stock.cache.hold("data"),
    ):
        pass
    assert str(stock.root / "removals") in caught.value.hint


@pytest.mark.parametrize("how", ["dead", "silent elsewhere", "torn"])
def test_a_removal_that_nobody_ends_holds_up_nobody_for_long(data: Stock, how: str) -> None:
    folder = data.root / "removals"
    folder.mkdir(exist_ok=True)
    owner = msgspec.to_builtins(this_process())
    if how == "dead":
        owner |= {"pid": 2**30}
    elif how == "silent elsewhere":
        owner |= {"boot": {"host": "elsewhere", "id": "b"}}
    said = json.dumps({"owner": owner, "what": [data.mark("data")]})
    path = folder / "0123.json"
    path.write_text(said[:-5] if how == "torn" else said)
    aged(folder, 600)
    with data.cache.hold("data"):
        pass
    assert [row.target for row in data.prune().removed] == [str(path)]
    assert files_below(folder) == []


# --- run ------------------------------------------------------------------------------------------


def run(stock: Stock, *words: str) -> Any:
    """`dscache run` as users start it."""
    return interpreter("-m", "dscache", "run", *words, environment=stock.environment)


SAY = "import os; print(os.environ['DSCACHE_PATH_DATA'])"


def test_run_hands_the_paths_over(stock: Stock) -> None:
    stock.describe("data", {"one.bin": ONE})
    path = stock.put("more.of-it", {"one.bin": ONE, "two.bin": TWO})
    say = f"{SAY}; print(os.environ['DSCACHE_PATH_MORE_OF_IT']); import sys; print(sys.argv[1:])"
    words = ["data", "shelf/more.of-it@1", "--", sys.executable, "-c", say, "--json", "--", "-x"]
    with run(stock, *words) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    first, second, arguments = out.splitlines()
    assert Path(first).read_bytes() == ONE
    assert second == str(path)
    assert arguments == "['--json', '--', '-x']"


@pytest.mark.parametrize("code", [0, 1, 77, -signal.SIGTERM])
def test_run_returns_what_the_command_returns(data: Stock, code: int) -> None:
    end = f"os.kill(os.getpid(), {-code})" if code < 0 else f"os._exit({code})"
    with run(data, "data", "--", sys.executable, "-c", f"import os; {end}") as process:
        process.communicate(timeout=60)
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command(data: Stock, number: int) -> None:
    code = """
import signal, sys, time
def told(number, _):
    print("got", number, flush=True)
    sys.exit(3)
signal.signal(signal.SIGINT, told)
signal.signal(signal.SIGTERM, told)
print("ready", flush=True)
time.sleep(60)
"""
    with run(data, "data", "--", sys.executable, "-c", code) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (f"got {number:d}\n", 3)


def test_nothing_of_it_goes_while_the_command_runs(data: Stock) -> None:
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    with run(data, "data", "--", sys.executable, "-c", code) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        done = data.prune(all=True)
        assert kept(done)["data"].startswith(f"process {process.pid} on ")
        process.kill()
        process.wait()
        assert gone(data.prune(all=True)) == ["data"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["data", "--", "no-such-command"], 2, "no-such-command cannot be run: No such file"),
        (["data", "--"], 2, "a command are expected"),
        (["data"], 2, "a command are expected"),
        (["--", "true"], 2, "a command are expected"),
        (["none", "--", "true"], 3, "none"),
        (["data", "nothing", "--", "true"], 3, "nothing"),
        (["Wrong!", "--", "true"], 2, "Wrong!"),
        (["a.b", "a-b", "--", "true"], 2, "DSCACHE_PATH_A_B"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_what_cannot_be_run_is_told(data: Stock, words: list[str], code: int, said: str) -> None:
    for name in ("a.b", "a-b"):
        data.describe(name, {"one.bin": ONE})
    with run(data, *words) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert said in err


def test_run_of_a_shared_command_line(data: Stock) -> None:
    """Options stand before `--`, what comes after it belongs to the command."""
    with run(data, "data", "--offline", "--no-progress", "--", "echo", "--offline") as process:
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "--offline\n")
