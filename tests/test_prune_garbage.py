"""Garbage: of all that processes leave behind, what goes and what stays, and what a prune says."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from dscache.results import Removal
from dscache.store import SMALL
from dscache.store.owner import Owner, this_process
from tests.archives import File, tar_of
from tests.children import Died, forked
from tests.making import content, md5, sha256
from tests.stocked import DAY, Stock, aged, gone, kept
from tests.stores import KILLED, Fault, faults_of, files_below, publish

ONE, LARGE = content(10_000, 1), content(SMALL + 50_000, 2)
TAR = tar_of(File("a.bin", content(5000, 4)), File("deep/b.bin", content(6000, 5)))
KEY = f"sha256-{sha256(LARGE).removeprefix('sha256:')}"
LEFT = "left by a process that has ended"


@pytest.fixture
def stock(home: Path) -> Stock:
    """With a dataset of every kind, all of which stays whatever garbage is found."""
    made = Stock(home)
    made.put("data", {"one.bin": ONE, "large.bin": LARGE})
    made.put("weak", {"weak.bin": content(900, 3)}, hash=md5(content(900, 3)))
    made.put("tar", {"a.tar": TAR}, unpack="tar")
    assert made.cache.plan_prune().removed == ()
    return made


LIVING = this_process()
ENDED = msgspec.structs.replace(LIVING, pid=2**30)
ELSEWHERE = msgspec.structs.replace(LIVING, namespace="pid:[1]")


def write(path: Path, data: bytes = b"left", *, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return aged(path, age)


def part(
    stock: Stock, owner: Owner | None, *, age: float = 0.0, key: str = KEY, journal: bool = True
) -> list[Path]:
    """What an attempt left: a part, and its journal."""
    boot = msgspec.to_builtins(LIVING.boot)
    facts = {"owner": msgspec.to_builtins(owner), "boot": boot, "synced": 0, "format": 2}
    found = [write(stock.root / f"parts/{key}.0123.part", b"x" * 5000, age=age)]
    if journal:
        text = json.dumps(facts).encode()
        found.append(write(stock.root / f"parts/{key}.0123.json", text, age=age))
    return found


def rows(stock: Stock) -> dict[str, str]:
    """What is garbage, by path below the cache, and why. Planning says so twice, then it is done.

    Nothing that is in use goes with it, and another prune finds nothing.
    """
    plan = stock.cache.plan_prune()
    assert stock.cache.plan_prune() == plan
    assert stock.cache.prune(plan) == plan
    for row in plan.removed:
        assert not os.path.lexists(where(stock, row))
    assert stock.cache.plan_prune().removed == ()
    assert all(map(stock.has, ("data", "weak", "tar")))
    assert faults_of(stock.root) == []
    return {str(where(stock, row).relative_to(stock.root)): row.reason for row in plan.removed}


def where(stock: Stock, row: Removal) -> Path:
    if row.kind == "blob":
        return stock.root / "blobs/sha256" / row.target[:2] / row.target[2:]
    return Path(row.target)


OTHER = f"sha256-{'0' * 64}"


@pytest.mark.parametrize(
    ("owner", "age", "key", "reason"),
    [
        (LIVING, 0, OTHER, ""),
        (LIVING, 400 * DAY, OTHER, ""),
        (LIVING, 400 * DAY, KEY, ""),
        (ENDED, 0, OTHER, ""),
        (ENDED, 6 * DAY, OTHER, ""),
        (ENDED, 8 * DAY, OTHER, "nobody went on with it for 8 d"),
        (ENDED, 0, KEY, "the whole file is here"),
        (None, 0, OTHER, ""),
        (None, 0, KEY, "the whole file is here"),
        (None, 8 * DAY, OTHER, "nobody went on with it for 8 d"),
        (ELSEWHERE, 0, OTHER, ""),
        (ELSEWHERE, 0, KEY, ""),
        (ELSEWHERE, 8 * DAY, OTHER, "nobody went on with it for 8 d"),
        (ENDED, 8 * DAY, f"md5-{'0' * 32}", "nobody went on with it for 8 d"),
        (ENDED, 0, f"md5-{'0' * 32}", ""),
    ],
)
def test_a_part_goes_when_nobody_can_want_it(
    stock: Stock, owner: Owner | None, age: float, key: str, reason: str
) -> None:
    paths = part(stock, owner, age=age, key=key)
    expected = dict.fromkeys((f"parts/{path.name}" for path in paths), reason) if reason else {}
    assert rows(stock) == expected


@pytest.mark.parametrize(("age", "goes"), [(0, False), (6 * DAY, False), (8 * DAY, True)])
@pytest.mark.parametrize("journal", [None, b"{", b""])
def test_a_part_without_a_sound_journal_goes_when_it_is_old(
    stock: Stock, journal: bytes | None, age: float, goes: bool
) -> None:
    names = {part(stock, None, age=age, journal=False)[0].name}
    if journal is not None:
        names.add(write(stock.root / f"parts/{KEY}.0123.json", journal, age=age).name)
    assert rows(stock).keys() == ({f"parts/{name}" for name in names} if goes else set())


def test_how_old_a_part_may_be_is_a_setting(home: Path) -> None:
    stock = Stock(home, part_max_age="1h")
    stock.put("data", {"one.bin": ONE})
    part(stock, None, age=4000)
    assert gone(stock.prune(), "part") == [f"{KEY}.0123.json", f"{KEY}.0123.part"]


@pytest.mark.parametrize(("owner", "goes"), [(LIVING, False), (ENDED, True), (ELSEWHERE, False)])
def test_a_journal_alone_goes_with_its_process(stock: Stock, owner: Owner, goes: bool) -> None:
    for path in part(stock, owner, key=OTHER):
        if path.suffix == ".part":
            path.unlink()
    assert rows(stock) == ({f"parts/{OTHER}.0123.json": LEFT} if goes else {})


@pytest.mark.parametrize(
    ("owner", "age", "reason"),
    [
        (LIVING, 400 * DAY, ""),
        (ENDED, 0, LEFT),
        (ELSEWHERE, 6 * DAY, ""),
        (ELSEWHERE, 8 * DAY, "nobody went on with it for 8 d"),
        (None, 6 * DAY, ""),
        (None, 8 * DAY, "nobody went on with it for 8 d"),
    ],
)
def test_a_tree_in_the_making_goes_with_its_process(
    stock: Stock, owner: Owner | None, age: float, reason: str
) -> None:
    folder = stock.root / f"parts/{KEY}.0123.tree"
    write(folder / "files/deep/a.bin", b"x" * 5000)
    if owner:
        write(folder / "owner.json", msgspec.json.encode(owner))
    aged(folder, age)
    assert rows(stock) == ({f"parts/{folder.name}": reason} if reason else {})


TEMPORARY = [
    "VERSION.0123.tmp",
    "CACHEDIR.TAG.0123.tmp",
    "verify.json.0123.tmp",
    f"parts/small.{'0' * 16}-1f.part",
    "records/shelf/other@1+01234567.json.0123.tmp",
    "proofs/ab/cdef.json.0123.tmp",
    "aliases/md5/ab/cdef.0123.tmp",
    "trees/ab/cdef.tar-1/tree.json.0123.tmp",
    "leases/1-ab/_owner.json.0123.tmp",
    "roots/project/0123.json.0123.tmp",
    "roots/symlinked/0123.json.0123.tmp",
    "removals/0123.json.0123.tmp",
    "registries/0123/registry.toml.0123.tmp",
    "locks/fetch-0123.holder.0123.tmp",
    "locks/hosts/0123.json.0123.tmp",
    "datasets/shelf/data/.dscache-0123.tmp",
    "datasets/shelf/other/.dscache-0123.tmp",
]


@pytest.mark.parametrize("path", TEMPORARY)
@pytest.mark.parametrize("age", [50, 90])
def test_what_was_on_its_way_goes_when_nobody_can_be_at_it(
    stock: Stock, path: str, age: float
) -> None:
    write(stock.root / path, age=age)
    found = rows(stock)
    found.pop("trees/ab/cdef.tar-1", None)
    assert found == ({path: LEFT} if age > 60 else {})


def test_what_is_on_its_way_is_no_matter_of_the_grace(home: Path) -> None:
    stock = Stock(home, prune_grace=0)
    stock.put("data", {"one.bin": ONE})
    for path in TEMPORARY:
        write(stock.root / path, age=1)
    assert stock.prune().removed == ()
    patient = Stock(home, prune_grace="1h")
    for path in TEMPORARY:
        aged(stock.root / path, 1800)
    assert patient.prune().removed == ()


def test_an_unfinished_view_stays_while_somebody_is_at_its_dataset(stock: Stock) -> None:
    path = "datasets/shelf/data/.dscache-0123.tmp"
    write(stock.root / path / "one.bin", age=400 * DAY)
    aged(stock.root / path, 400 * DAY)
    with stock.cache.hold("data"):
        assert rows(stock) == {}
    assert rows(stock) == {path: LEFT}


def test_old_wrong_bytes_go(stock: Stock) -> None:
    write(stock.root / "quarantine/0123-a.bin", age=6 * DAY)
    write(stock.root / "quarantine/0124-b.bin", age=8 * DAY)
    assert rows(stock) == {"quarantine/0124-b.bin": "8 d old"}


@pytest.mark.parametrize("how", ["in order", "killed"])
def test_a_lease_goes_with_its_process(stock: Stock, how: str) -> None:
    def child() -> None:
        stock.cache.fetch("data")
        lease = stock.store.leases.new()
        lease.add(stock.mark("tar"))
        if how == "killed":
            os._exit(KILLED)
        lease.release()

    if how == "killed":
        with pytest.raises(Died):
            forked(child)
    else:
        forked(child)
    found = rows(stock)
    assert len(found) == (2 if how == "killed" else 1)  # a fork has no orderly end
    assert all(reason.endswith(" has ended") for reason in found.values())
    assert list((stock.root / "leases").iterdir()) == []


def test_a_removal_goes_with_its_process(stock: Stock) -> None:
    def child() -> None:
        with stock.store.removals.said(["shelf/data@1"]):
            os._exit(KILLED)

    with stock.store.removals.said(["shelf/none@1"]):
        with pytest.raises(Died):
            forked(child)
        assert list(rows(stock).values()) == ["a prune that has ended"]
        assert len(files_below(stock.root / "removals")) == 1


def test_blobs_and_trees_that_no_record_names_go_when_they_are_old(stock: Stock) -> None:
    path = stock.put("stray", {"b.tar": tar_of(File("c.bin", content(700, 9)))}, unpack="tar")
    stock.record("stray").unlink()
    blob = publish(stock.store, content(5000, 8))
    plan = stock.cache.plan_prune()
    assert plan.removed == ()
    assert set(kept(plan).values()) == {"no record names it yet, and it is younger than 60 s"}
    aged(stock.root / "blobs", 100)
    aged(stock.root / "trees", 100)
    aged(stock.root / "datasets/shelf/stray", 100)
    found = rows(stock)
    assert set(found.values()) == {"no record names it"}
    assert {name.split("/")[0] for name in found} == {"blobs", "trees", "datasets"}
    assert len(found) == 4
    assert str(Path(blob.path).relative_to(stock.root)) in found
    assert not path.exists()


def test_a_tree_of_another_way_of_unpacking_goes(stock: Stock) -> None:
    tree = next((stock.root / "trees").glob("*/*"))
    other = shutil.copytree(tree, tree.with_name(tree.name.replace("-1", "-0")))
    aged(other, 100)
    assert rows(stock) == {str(other.relative_to(stock.root)): "no record names it"}


def test_what_speaks_of_what_is_gone_goes(stock: Stock) -> None:
    stock.put("gone", {"weak.bin": content(950, 6)}, hash=md5(content(950, 6)))
    stock.put("large", {"large.bin": content(SMALL + 9, 7)})
    for blob in files_below(stock.root / "blobs"):
        if blob.read_bytes() in (content(950, 6), content(SMALL + 9, 7)):
            blob.unlink()
    for name in ("gone", "large"):
        stock.record(name).unlink()
        shutil.rmtree(stock.root / f"datasets/shelf/{name}")
    assert rows(stock) == {}
    aged(stock.root / "aliases", 100)
    aged(stock.root / "proofs", 100)
    torn = write(stock.root / "aliases/md5/ab" / ("c" * 30), b"torn", age=100)
    found = rows(stock)
    assert set(found.values()) == {"what it speaks of is gone"}
    assert sorted(name.split("/")[0] for name in found) == ["aliases", "aliases", "proofs"]
    assert not torn.exists()


def test_an_alias_of_what_is_just_being_brought_stays(stock: Stock) -> None:
    """It is written before its blob appears, and tells whose that is."""
    data = content(950, 6)
    sums = md5(data)
    alias = stock.root / f"aliases/md5/{sums[4:6]}/{sums[6:]}"
    write(alias, sha256(data).removeprefix("sha256:").encode() + b"\n", age=100)
    plan = stock.cache.plan_prune()
    assert [row.kind for row in plan.removed] == ["record"]
    with stock.store.leases.new() as lease:
        from dscache.digest import Digest

        lease.announce([Digest.parse(sums)])
        done = stock.cache.prune(plan)
    assert done.removed == ()
    assert alias.exists()
    stock.put("weak-too", {"weak.bin": data}, hash=sums)
    assert stock.cache.prune(plan).removed == ()
    assert alias.exists()


def test_the_alias_of_an_archive_that_was_dropped_stays(home: Path) -> None:
    stock = Stock(home)
    stock.put("tar", {"a.tar": TAR}, unpack="tar", hash=md5(TAR))
    stock.prune(archives=True)
    aged(stock.root / "aliases", 100)
    assert stock.prune().removed == ()
    assert len(files_below(stock.root / "aliases")) == 1


@pytest.mark.parametrize("path", ["", "blobs", "parts/notes.txt", "blobs/sha256/ab/notes.txt"])
def test_what_is_none_of_ours_stays(stock: Stock, path: str) -> None:
    """Only what we know the name of is ours to remove, but for what lies in parts for long."""
    mine = write(stock.root / path / "mine" if "." not in path else stock.root / path, age=5 * DAY)
    assert stock.prune(older_than="400d", archives=True).removed[1:] == ()
    assert mine.exists()


@pytest.mark.parametrize("at", range(3, 60, 4))
def test_what_a_killed_fetch_leaves_goes_in_the_end(home: Path, at: int) -> None:
    """What can be gone on with goes later than the rest, but nothing stays for good."""
    stock = Stock(home)
    stock.describe("data", {"one.bin": ONE, "large.bin": LARGE, "a.tar": TAR})

    def child() -> None:
        Fault(at, "kill").arm()
        stock.fetch("data").unwrap()

    with pytest.raises(Died):
        forked(child)
    aged(stock.root, 100)
    stock.prune()
    assert not list((stock.root / "parts").glob("small.*"))
    aged(stock.root, 8 * DAY)
    stock.prune(all=True)
    left = {path.relative_to(stock.root).parts[0] for path in files_below(stock.root)}
    assert left <= {"VERSION", "CACHEDIR.TAG", "locks"}
    aged(stock.root, 8 * DAY)
    assert stock.cache.plan_prune().removed == ()
    assert forked(lambda: stock.fetch("data").status) == "downloaded"
