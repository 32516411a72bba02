"""A cache as a machine: any order of fetches, prunes, pins, holds, kills, restarts and repairs.

The oracle is plain values: what must stand, what may, and what was damaged. It reads the cache
folder with nothing of the store but where things lie.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dscache import settings
from dscache.cache import Cache
from dscache.errors import DscacheError, NotCached
from dscache.results import Plan
from dscache.store import SMALL
from tests.archives import File, packed
from tests.children import Died, forked
from tests.making import Shelf, artifact, content, md5
from tests.stores import Fault, boot, faults_of, files_below, let_an_hour_pass, overwrite

MEMBERS = {"in/one.bin": content(3000, 1), "in/two.bin": content(700, 2)}
TAR = packed("tar", *(File(name, data) for name, data in MEMBERS.items()))
#: What each dataset holds. A path has the same bytes in all of them.
CONTENTS = {
    "single": {"single.bin": content(900, 3)},
    "twins": {"shared.bin": content(2000, 4), "twin.bin": content(2000, 4), "weak.bin": b"weak"},
    "sharing": {"shared.bin": content(2000, 4), "own.bin": content(1500, 5), "empty.bin": b""},
    "large": {"large.bin": content(SMALL + 5000, 6), "little.bin": content(300, 7)},
    "pack": MEMBERS,
    "listed": {"row/a.bin": content(400, 8), "row/b.bin": content(410, 9)},
}
#: What the blobs and trees of each dataset are made of, besides its files.
SOURCES: dict[str, dict[str, bytes]] = {"pack": {"pack.tar": TAR}}
BYTES = {path: data for files in CONTENTS.values() for path, data in files.items()}
DAY = 86400.0
#: Bytes of the disk that files may take more or less once they are written back.
DRIFT = 16384
#: Folders of small files that go with what they speak of, and are not counted.
NOTES = ("records", "proofs")

names = st.sampled_from(sorted(CONTENTS))
kills = st.builds(Fault, st.integers(1, 60), st.sampled_from(["kill", "kill", "fail"]))
tears = st.builds(Fault, st.integers(1, 12), st.just("tear"))
faults = kills | tears
ways = st.sampled_from(["other bytes", "shorter", "empty", "gone"])


@dataclass(eq=False)
class Holding:
    """A dataset that is held: the context that holds it, and where it stands."""

    name: str
    context: AbstractContextManager[Path]
    path: Path


class KeepingMachine(RuleBasedStateMachine):
    """The oracle, and one rule for all that can happen.

    Attributes:
        must: the files that must be there of each dataset; nothing but damage excuses their lack.
        may: datasets of which more may be there than that.
        aged: datasets that were last used 40 days ago.
        rotten: what was damaged so that only reading tells, by its inode.
        hurt: something was damaged since the last repair.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "cache"
        self.shelf = stocked(self.folder / "shelf")
        self.settings = settings.load(
            cache_dir=str(self.root),
            registries={"shelf": str(self.shelf.folder)},
            prune_grace=0,
            part_max_age=0,
            quarantine_max_age=0,
            lease_ttl=0,
            lock_timeout=20,
        )
        self.cache = Cache(settings=self.settings)
        self.boots = ExitStack()
        self.count = 0
        self.must: dict[str, set[str]] = {name: set() for name in CONTENTS}
        self.may: set[str] = set()
        self.aged: set[str] = set()
        self.pins: set[str] = set()
        self.held: list[Holding] = []
        self.forgotten: list[Holding] = []
        self.rotten: dict[int, bytes] = {}
        self.damages = 0
        self.hurt = False

    def teardown(self) -> None:
        for each in self.held + self.forgotten:
            each.context.__exit__(None, None, None)
        self.boots.close()
        shutil.rmtree(self.folder)

    # --- fetching ---

    @initialize(name=names)
    def begin(self, name: str) -> None:
        self.fetch(name)

    @rule(name=names)
    def fetch(self, name: str) -> None:
        with self._fetched(name) as path:
            self._check(name, path, set(CONTENTS[name]))
        self._came(name, set(CONTENTS[name]))

    @rule(name=names, data=st.data())
    def fetch_some(self, name: str, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(sorted(CONTENTS[name])))
        with self._fetched(name, files=chosen) as path:
            self._check(name, path, {chosen})
        self._came(name, {chosen})

    @rule(name=names)
    def hold(self, name: str) -> None:
        context = self._fetched(name)
        path = context.__enter__()
        self.held.append(Holding(name, context, path))
        self._came(name, set(CONTENTS[name]))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from(self.held))
        self.held.remove(each)
        each.context.__exit__(None, None, None)

    @rule(name=names)
    def fetch_in_a_process_that_ends(self, name: str) -> None:
        path = forked(lambda: self.cache.fetch(name))
        self._came(name, set(CONTENTS[name]))
        self._check(name, path, set(CONTENTS[name]))

    def _fetched(self, name: str, **options: Any) -> AbstractContextManager[Path]:
        return self.cache.hold(name, **options)

    def _came(self, name: str, paths: set[str]) -> None:
        self.must[name] |= paths
        self.aged.discard(name)
        if len(self.must[name]) == len(CONTENTS[name]):
            self.may.discard(name)

    @rule(name=names)
    def path(self, name: str) -> None:
        try:
            path = forked(lambda: self.cache.path(name))  # what is told is held to the end
        except NotCached:
            assert self.hurt or self.must[name] != set(CONTENTS[name])
        else:
            assert self.hurt or self.must[name] == set(CONTENTS[name]) or name in self.may
            self._check(name, path, set(CONTENTS[name]))
            self._came(name, set(CONTENTS[name]))

    def _check(self, name: str, path: Path, wanted: set[str]) -> None:
        """What was returned has the right bytes, if it can have them."""
        for each in wanted:
            file = path / each if path.is_dir() else path
            if file.read_bytes() != BYTES[each]:
                assert self._is_rotten(file), f"{name}: {file} has wrong bytes"

    def _is_rotten(self, path: Path) -> bool:
        return self.rotten.get(path.stat().st_ino) == path.read_bytes()

    # --- keeping ---

    @rule(name=names)
    def pin(self, name: str) -> None:
        try:
            self.cache.pin(name)
        except NotCached:
            assert self.hurt or not self.must[name]
        else:
            assert self.hurt or self.must[name] or name in self.may
            self.pins.add(name)

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pins)))
        try:
            self.cache.unpin(name)
        except NotCached:
            assert self.hurt or not self._records(name)
        else:
            self.pins.remove(name)

    @rule(name=names)
    def age(self, name: str) -> None:
        """Nobody has used it for 40 days."""
        for record in self._records(name):
            used = time.time() - 40 * DAY
            os.utime(record, (used, used))
            self.aged.add(name)

    @property
    def kept(self) -> set[str]:
        """The datasets that no prune may take."""
        return self.pins | {each.name for each in self.held}

    # --- pruning ---

    @rule(name=names)
    def prune_named(self, name: str) -> None:
        try:
            self._prune({name}, names=[name])
        except NotCached:
            assert self.hurt or not self.must[name]

    @rule()
    def prune_all(self) -> None:
        self._prune(set(CONTENTS), all=True)

    @rule()
    def prune_old(self) -> None:
        self._prune(set(self.aged), older_than="30d")

    @rule(size=st.sampled_from([0, 5000, SMALL, 2 * SMALL]))
    def prune_to_size(self, size: int) -> None:
        before = self._recorded()
        done = self._pruned(max_size=size)
        gone = before - self._recorded()
        assert not gone & self.kept
        if not self.hurt:
            left = before - gone - self.kept
            assert not left or self.cache.usage().bytes <= size
            assert not (gone - self.aged and left & self.aged), done
        self._went(gone)

    @rule()
    def prune_until_all_is_free(self) -> None:
        """But for what frees nothing, since others that are kept have it too."""
        before = self._recorded()
        self._pruned(free="1000TB")
        gone = before - self._recorded()
        assert not gone & self.kept
        self._went(gone)
        if not self.hurt and not self.kept:
            assert self.cache.usage().bytes == 0

    @rule()
    def prune_archives(self) -> None:
        self._prune(set(), archives=True)
        if not self.hurt and "pack" not in self.may and self.must["pack"] == set(MEMBERS):
            assert not self._stands(TAR)

    @rule()
    def prune_garbage(self) -> None:
        let_an_hour_pass(self.root)
        self._prune(set())
        self._prune(set())  # the lease of a process that could not even say whose it is
        if not self._torn_records():
            left = list(self._unnamed())
            assert left == [], left

    def _prune(self, chosen: set[str], **policy: Any) -> None:
        """Prune by a policy that takes these datasets, and see that it does."""
        self._pruned(**policy)
        if self._torn_records():
            return
        gone = chosen - self.kept
        if not self.hurt or gone == set(CONTENTS):
            assert not any(self._records(name) for name in gone)
        self._went(gone)

    def _pruned(self, **policy: Any) -> Plan:
        time.sleep(0.01)  # what was written just now has no age at all
        plan = self.cache.plan_prune(policy.pop("names", ()), **policy)
        before, notes = taken(self.root), sum(taken(self.root / each) for each in NOTES)
        done = self.cache.prune(plan)
        if self._torn_records():
            assert not any(row.kind in ("dataset", "blob", "tree") for row in done.removed)
        planned, removed = ({row.target for row in each.removed} for each in (plan, done))
        leases = {row.target for row in plan.removed if row.kind == "lease"}
        assert planned - removed <= leases  # which may have been renewed, as far as is known
        assert removed <= planned
        if not self.hurt:
            freed = before - taken(self.root)
            assert abs(freed - done.freed_bytes) <= notes + DRIFT, (freed, done)
        return done

    def _went(self, names: set[str]) -> None:
        for name in names:
            self.must[name] = set()
        self.may -= names
        self.aged -= names

    # --- accidents ---

    @rule(name=names, fault=faults)
    def fetch_goes_wrong(self, name: str, fault: Fault) -> None:
        self._strike(lambda: self.cache.fetch(name), fault)
        if any(time.time() - path.stat().st_mtime < DAY for path in self._records(name)):
            self.aged.discard(name)
        self._may_have_come({name})

    @rule(fault=faults, everything=st.booleans())
    def prune_goes_wrong(self, fault: Fault, everything: bool) -> None:
        self._strike(lambda: self.cache.prune(self.cache.plan_prune(all=everything)), fault)
        if everything:
            may_go = set(CONTENTS) - self.kept
            self._may_have_come({name for name in may_go if self._records(name)})
            for name in may_go:
                self.must[name] = set()

    @rule(fault=faults)
    def verify_goes_wrong(self, fault: Fault) -> None:
        self._strike(self.cache.verify, fault)

    @rule(fault=faults)
    def repair_goes_wrong(self, fault: Fault) -> None:
        self._strike(lambda: self.cache.verify(repair=True), fault)

    def _strike(self, work: Callable[[], object], fault: Fault) -> None:
        """Do it in a process that dies, or whose disk fails, on the way."""

        def child() -> None:
            fault.arm()
            try:
                work()
            except DscacheError:
                return

        try:
            forked(child)
        except Died:
            return

    def _may_have_come(self, names: set[str]) -> None:
        self.may |= {name for name in names if self.must[name] != set(CONTENTS[name])}

    @rule()
    def restart(self) -> None:
        """The machine starts anew. Nobody holds anything any more, though nobody has let go."""
        self.count += 1
        self.boots.enter_context(boot(f"boot {self.count}"))
        self.forgotten += self.held
        self.held = []

    @rule(data=st.data(), folder=st.sampled_from(["blobs", "trees", "datasets"]), way=ways)
    def damage(self, data: st.DataObject, folder: str, way: str) -> None:
        found = [path for path in files_below(self.root / folder) if not path.is_symlink()]
        if found:
            path = data.draw(st.sampled_from(found))
            self._damage(path, way)

    @rule(data=st.data(), way=ways)
    def damage_a_small_file(self, data: st.DataObject, way: str) -> None:
        found = [
            path
            for folder in ("records", "proofs", "aliases")
            for path in files_below(self.root / folder)
        ]
        if found:
            path = data.draw(st.sampled_from(found))
            self._damage(path, way)

    def _damage(self, path: Path, way: str) -> None:
        data = path.read_bytes()
        if not data:
            return
        self.hurt = True
        if way == "gone":
            path.unlink()
        elif way == "empty":
            overwrite(path, b"")
        elif way == "shorter":
            overwrite(path, data[: len(data) // 2])
        else:
            self.damages += 1
            overwrite(path, content(len(data), 1000 + self.damages))
            self.rotten[path.stat().st_ino] = path.read_bytes()

    # --- verifying ---

    @rule(full=st.booleans())
    def verify(self, full: bool) -> None:
        found = self.cache.verify(full=full)
        if not self.hurt:
            assert found.corrupt == ()
        seen = [name for name in CONTENTS if any(map(self._is_rotten, self._shown(name)))]
        assert bool(found.corrupt) >= bool(seen), seen
        assert self.root.joinpath("verify.json").exists() is False

    @rule()
    def repair(self) -> None:
        """Whatever was done to the cache, all of it comes right, since the sources are there."""
        for _ in range(3):  # what a record names that made no sense is looked at the next time
            found = self.cache.verify(repair=True)
            if not found.corrupt and not found.repaired:
                break
        assert found.corrupt == ()
        assert found.repaired == ()
        self.hurt = False
        for name in CONTENTS:
            assert not any(map(self._is_rotten, self._shown(name)))
            if not self._records(name):
                self._went({name})
            elif self.must[name] != set(CONTENTS[name]):
                self.must[name] = set()
                self.may.add(name)
        assert self._faults() == []

    @rule()
    def repair_and_usage(self) -> None:
        self.repair()
        self.prune_garbage()
        usage = self.cache.usage()
        assert usage.bytes == held_bytes(self.root)
        assert usage.blobs == len(files_below(self.root / "blobs"))
        assert {each.name for each in usage.datasets if each.held_by} >= {
            name for name in self.kept if self._records(name)
        }

    # --- always ---

    @invariant()
    def what_must_stand_stands(self) -> None:
        """What is held above all, at the path that was returned."""
        if self.hurt:
            return
        for each in self.held:
            self._check(each.name, each.path, self.must[each.name])
        for name, paths in self.must.items():
            shown = {name_in_view(each) for each in self._shown(name)}
            assert paths <= shown, f"{name}: {paths - shown} are gone"

    @invariant()
    def nothing_is_wrong_that_nobody_did(self) -> None:
        if not self.hurt:
            assert self._faults() == []

    # --- the cache as it stands ---

    def _records(self, name: str) -> list[Path]:
        return [*self.root.glob(f"records/shelf/{name}@*.json")]

    def _faults(self) -> list[str]:
        """What is wrong, but for what stands in views that no record speaks of any more."""
        unnamed = [f"/datasets/shelf/{name}/" for name in set(CONTENTS) - self._recorded()]
        found = faults_of(self.root, BYTES)
        return [each for each in found if not any(view in each for view in unnamed)]

    def _recorded(self) -> set[str]:
        return {name for name in CONTENTS if self._records(name)}

    def _torn_records(self) -> list[Path]:
        return [path for path in self.root.glob("records/*/*.json") if not is_json(path)]

    def _shown(self, name: str) -> list[Path]:
        """The files of views whose datasets have records."""
        if not self._records(name):
            return []
        return [path for path in files_below(self.root / "datasets/shelf" / name) if path.exists()]

    def _stands(self, data: bytes) -> bool:
        digest = sha256_of_bytes(data)
        return (self.root / "blobs/sha256" / digest[:2] / digest[2:]).exists()

    def _unnamed(self) -> Iterator[str]:
        """What no record speaks of, and what processes that have ended have left."""
        blobs, trees, views = set(), set(), set()
        for path in self.root.glob("records/shelf/*.json"):
            record = json.loads(path.read_bytes())
            blobs |= {row[1] for row in record["files"]} | {row[1] for row in record["trees"]}
            blobs |= set(record["keeps"])
            trees |= {row[1] for row in record["trees"]}
            views.add(path.stem.replace("@", "/"))
        for path in files_below(self.root / "blobs"):
            if path.parent.name + path.name not in blobs:
                yield str(path)
        for path in self.root.glob("trees/*/*"):
            if path.parent.name + path.name.partition(".")[0] not in trees:
                yield str(path)
        for path in self.root.glob("datasets/shelf/*/*"):
            name, view = path.parts[-2:]
            if f"{name}/{view}" not in views and name not in self.kept:
                yield str(path)
        for folder in ("parts", "quarantine", "removals"):
            yield from map(str, files_below(self.root / folder))
        yield from (str(path) for path in files_below(self.root) if path.suffix == ".tmp")
        leases = [path.name for path in self.root.glob("leases/*")]
        if len(leases) != len(self.held):
            yield f"{leases} for {[each.name for each in self.held]}"


def stocked(folder: Path) -> Shelf:
    """The registry, in a folder with its files."""
    shelf = Shelf(folder)
    for path, data in [*BYTES.items(), ("pack.tar", TAR)]:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    for name, files in CONTENTS.items():
        if name not in ("pack", "listed"):
            rows = [artifact(path, data, path) for path, data in files.items()]
            for row in rows:
                if row["path"] == "weak.bin":
                    row["hash"] = md5(files["weak.bin"])
            shelf.add(name, rows)
    shelf.add("pack", [artifact("pack.tar", TAR, "pack.tar", unpack="tar")])
    rows = [artifact(path, data) for path, data in CONTENTS["listed"].items()]
    lines = "\n".join(json.dumps({**row, "urls": [row["path"]]}) for row in rows).encode()
    (folder / "list.jsonl").write_bytes(lines)
    listing = artifact("list.jsonl", lines, "list.jsonl")
    del listing["path"]
    shelf.write("listed.toml", {"version": "1", "manifest": listing})
    return shelf


def name_in_view(path: Path) -> str:
    """The path in its dataset of a file of the cache."""
    *_, (_, rest) = (
        (at, path.parts[at + 4 :]) for at, part in enumerate(path.parts) if part == "datasets"
    )
    return "/".join(rest)


def sha256_of_bytes(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def is_json(path: Path) -> bool:
    """True if a record can be read."""
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def taken(root: Path) -> int:
    """Bytes that the files of a folder take on the disk, each once."""
    found = {path.lstat().st_ino: path.lstat().st_blocks * 512 for path in files_below(root)}
    return sum(found.values())


def held_bytes(root: Path) -> int:
    """Bytes of blobs, and of what is unpacked."""
    files = files_below(root / "blobs")
    files += [path for path in files_below(root / "trees") if "files" in path.parts]
    return sum(path.stat().st_size for path in files)


_USUAL = hypothesis_settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
KeepingMachine.TestCase.settings = _USUAL
TestKeeping = pytest.mark.timeout(900)(KeepingMachine.TestCase)  # to find the shortest example


class LongMachine(KeepingMachine):
    """The same, many more times."""


LongMachine.TestCase.settings = hypothesis_settings(
    _USUAL, max_examples=400, stateful_step_count=50
)
TestKeepingLong = pytest.mark.soak(LongMachine.TestCase)
