"""Repairing puts right what a verification has found, and until then nothing of it is given out."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import dscache
from dscache.cache import Cache
from dscache.cli import cli
from dscache.errors import DscacheError, NotCached, StorageError
from dscache.events import Event, Notice
from dscache.results import Verified
from tests.children import Died, forked, unprivileged
from tests.making import Shelf, artifact, content, md5, sha256
from tests.origin import Site, origin
from tests.stores import (
    KILLED,
    Fault,
    boot,
    cut,
    faults_of,
    files_below,
    flip,
    grow,
    overwrite,
    zero,
)
from tests.test_pruning import packed

LARGE, SMALL, OTHER = content(2 << 20, 1), content(3000, 2), content(500, 3)
MEMBERS = {"a/one.bin": content(5000, 4), "two.bin": content(40, 5)}
TAR = packed(MEMBERS)
#: What each dataset holds.
DATASETS = {
    "plain": {"large.bin": LARGE, "deep/small.bin": SMALL},
    "twin": {"same.bin": SMALL, "other.bin": OTHER},
    "pack": MEMBERS,
}


@dataclass
class World:
    """A cache that holds all datasets, and the server that they came from."""

    home: Path
    site: Site
    shelf: Shelf
    events: list[Event] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    def blob(self, data: bytes) -> Path:
        hex_ = sha256(data).removeprefix("sha256:")
        return self.cache / "blobs/sha256" / hex_[:2] / hex_[2:]

    def one(self, pattern: str) -> Path:
        (path,) = self.cache.glob(pattern)
        return path

    def verify(self, *names: str, **how: Any) -> Verified:
        return Cache().verify(names, progress=self.events.append, **how)

    def repair(self, *names: str, **how: Any) -> Verified:
        return self.verify(*names, repair=True, **how)

    @property
    def notices(self) -> list[str]:
        return [each.message for each in self.events if isinstance(each, Notice)]

    @property
    def quarantine(self) -> list[bytes]:
        return [path.read_bytes() for path in files_below(self.cache / "quarantine")]

    def check(self, *names: str) -> None:
        """The datasets are here, without another download, and nothing is wrong."""
        before = len(self.site.requests)
        for name in names or DATASETS:
            folder = Cache().path(name)
            for path, data in DATASETS[name].items():
                assert (folder / path).read_bytes() == data
        assert len(self.site.requests) == before
        assert self.verify(full=True).corrupt == ()
        assert faults_of(self.cache) == []


@pytest.fixture
def site() -> Iterator[Site]:
    files = {"/large": LARGE, "/small": SMALL, "/other": OTHER, "/pack.tar": TAR}
    with origin({**files, **{f"/mirror{path}": data for path, data in files.items()}}) as found:
        yield found


@pytest.fixture
def world(home: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> World:
    shelf = Shelf(home / "shelf")

    def urls(name: str) -> tuple[str, str]:
        return site.url(f"/{name}"), site.url(f"/mirror/{name}")

    large = artifact("large.bin", LARGE, *urls("large"))
    shelf.add("plain", [large, artifact("deep/small.bin", SMALL, *urls("small"))])
    same = artifact("same.bin", SMALL, *urls("small"))
    shelf.add("twin", [same, artifact("other.bin", OTHER, *urls("other"))])
    shelf.add("pack", [artifact("pack.tar", TAR, *urls("pack.tar"), unpack="tar")])
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(shelf.folder))
    (home / "config.toml").write_text("retries = 0\n")
    dscache.fetch_many(DATASETS)
    return World(home, site, shelf)


def empty(path: Path) -> None:
    overwrite(path, b"")


def edit(path: Path) -> None:
    """As a person does, who sees to it that it can be written."""
    path.chmod(0o644)
    path.write_bytes(b"edited" + path.read_bytes()[6:])


HARMS: list[Callable[[Path], None]] = [flip, cut, grow, zero, empty, edit, Path.unlink]
PLACES: dict[str, Callable[[World], Path]] = {
    "a large blob": lambda world: world.blob(LARGE),
    "a small blob": lambda world: world.blob(SMALL),
    "an archive": lambda world: world.blob(TAR),
    "a member": lambda world: world.one("trees/*/*/files/a/one.bin"),
    "a list": lambda world: world.one("trees/*/*/members"),
    "a summary": lambda world: world.one("trees/*/*/tree.json"),
    "a view": lambda world: world.one("datasets/shelf/plain/*/deep/small.bin"),
    "a record": lambda world: world.one("records/shelf/plain@*.json"),
}


@pytest.mark.parametrize("how", ["quick", "full", "later"])
@pytest.mark.parametrize("place", PLACES)
def test_damage_of_every_kind_is_mended(world: World, place: str, how: str) -> None:
    full = how == "full"
    for harm in HARMS:
        path = PLACES[place](world)
        if place in ("an archive", "a record") and harm is Path.unlink:
            continue  # archives are dropped, and datasets are removed
        if place == "a view":
            data = path.read_bytes()
            path.unlink()  # a file of its own, so that only the view is harmed
            path.write_bytes(data)
        harm(path)
        assert world.verify(full=full).corrupt, (place, harm)
        if how == "later":
            assert forked(lambda: in_another_boot(world.repair)).corrupt == (), (place, harm)
        else:
            found = world.repair(full=full)
            assert found.corrupt == (), (place, harm)
            assert found.repaired
            assert found.ok == found.checked
        world.check()


def in_another_boot(work: Callable[[], Verified]) -> Verified:
    with boot("another"):
        return work()


def test_each_damage_is_told_with_its_datasets(world: World) -> None:
    flip(world.blob(SMALL))
    flip(world.one("trees/*/*/files/two.bin"))
    found = {each.path: each for each in world.verify().corrupt}
    assert found.keys() == {
        str(world.blob(SMALL)),
        str(world.one("trees/*/*/files/two.bin")),
    }
    blob = found[str(world.blob(SMALL))]
    assert sorted(blob.datasets) == ["shelf/plain@1", "shelf/twin@1"]
    assert (blob.digest, blob.problem) == (sha256(SMALL), "other content")
    assert world.repair().repaired == tuple(found[path] for path in sorted(found))


def test_what_was_damaged_is_kept_in_quarantine(world: World) -> None:
    wrong = bytes(len(LARGE))
    overwrite(world.blob(LARGE), wrong)
    world.repair()
    assert world.quarantine == [wrong]
    (kept,) = files_below(world.cache / "quarantine")
    assert kept.name.endswith(sha256(LARGE).removeprefix("sha256:"))
    assert any(str(kept) in notice for notice in world.notices)


def test_only_what_is_damaged_is_brought_again(world: World) -> None:
    flip(world.blob(SMALL))
    before = len(world.site.requests)
    world.repair()
    assert {each.path for each in world.site.requests[before:]} == {"/small"}


def test_any_mirror_will_do(world: World) -> None:
    from tests.origin import Flip, Refuse

    world.site.fault("/large", Flip(at=1000))
    world.site.fault("/small", Refuse(404))
    flip(world.blob(LARGE))
    flip(world.blob(SMALL))
    assert world.repair().corrupt == ()
    world.check()


def test_a_blob_comes_back_through_whichever_dataset_is_still_known(world: World) -> None:
    (world.shelf.folder / "plain.toml").unlink()
    flip(world.blob(SMALL))
    assert world.repair("plain").corrupt == ()
    assert (Cache().path("twin") / "same.bin").read_bytes() == SMALL
    assert world.verify().corrupt == ()


def test_a_registry_that_has_gone_on_still_has_the_old_bytes(world: World) -> None:
    new = content(700, 9)
    url = world.site.url("/small")
    world.shelf.add("twin", [artifact("same.bin", SMALL, url), artifact("new.bin", new, url)])
    (world.shelf.folder / "plain.toml").unlink()
    flip(world.blob(SMALL))
    assert world.repair().corrupt == ()
    flip(world.blob(OTHER))
    (left,) = world.repair().corrupt
    assert left.datasets == ("shelf/twin@1",)
    assert "has no other.bin" in left.problem


@pytest.mark.parametrize("full", [False, True])
def test_what_cannot_be_had_again_is_listed_and_not_given_out(world: World, full: bool) -> None:
    (world.shelf.folder / "plain.toml").rename(world.home / "plain.toml")
    flip(world.blob(LARGE))
    wrong = world.blob(LARGE).read_bytes()
    (left,) = world.repair(full=full).corrupt
    assert left.datasets == ("shelf/plain@1",)
    assert "not repaired: " in left.problem
    assert world.quarantine == [wrong]
    (world.home / "plain.toml").rename(world.shelf.folder / "plain.toml")
    with pytest.raises(NotCached):
        Cache().path("plain")
    with pytest.raises(NotCached):
        Cache().fetch("plain", offline=True)
    (again,) = world.verify().corrupt
    assert again.problem == "missing"
    assert (Cache().fetch("plain") / "large.bin").read_bytes() == LARGE
    world.check()


def test_offline_trees_and_views_are_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSCACHE_OFFLINE", "1")
    flip(world.one("trees/*/*/files/two.bin"))
    world.one("datasets/shelf/twin/*/same.bin").unlink()
    flip(world.blob(LARGE))
    before = len(world.site.requests)
    (left,) = world.repair().corrupt
    assert left.path == str(world.blob(LARGE))
    assert "offline" in left.problem
    assert len(world.site.requests) == before
    assert {name for each in world.verify().corrupt for name in each.datasets} == {"shelf/plain@1"}
    monkeypatch.delenv("DSCACHE_OFFLINE")
    assert world.repair().corrupt == ()
    world.check()


def test_a_tree_whose_archive_was_dropped_is_made_again(world: World) -> None:
    cache = Cache()
    cache.prune(cache.plan_prune(["pack"], archives=True))
    assert not world.blob(TAR).exists()
    flip(world.one("trees/*/*/files/two.bin"))
    assert world.repair().corrupt == ()
    assert not world.blob(TAR).exists()
    world.check()


def test_an_archive_that_is_damaged_beside_its_tree(world: World) -> None:
    flip(world.blob(TAR))
    flip(world.one("trees/*/*/files/two.bin"))
    found = world.repair()
    assert found.corrupt == ()
    assert len(found.repaired) == 2
    world.check()


def test_a_selection_stays_one(world: World) -> None:
    shutil.rmtree(world.cache)
    Cache().fetch("plain", files="deep/*")
    Cache().fetch("pack", files="two.bin")
    for wrong in (world.blob(SMALL), world.one("trees/*/*/files/two.bin")):
        flip(wrong)
    assert world.repair().corrupt == ()
    assert not world.blob(LARGE).exists()
    assert (Cache().path("plain", files="deep/*") / "deep/small.bin").read_bytes() == SMALL
    assert (Cache().path("pack", files="two.bin") / "two.bin").read_bytes() == MEMBERS["two.bin"]
    assert not world.one("datasets/shelf/pack/*").joinpath("a").exists()
    assert world.verify().corrupt == ()


@pytest.mark.parametrize("name", ["wild [1]*?.bin", "plain.bin"])
def test_the_record_of_a_selection_is_made_again(world: World, name: str) -> None:
    url = world.site.url("/small")
    world.shelf.add("odd", [artifact(name, SMALL, url), artifact("big", LARGE, url)])
    Cache().fetch("odd", files=name.replace("[", "[[]"))
    before = len(world.site.requests)
    cut(world.one("records/shelf/odd@*.json"))
    assert world.repair("odd").corrupt == ()
    assert len(world.site.requests) == before
    record = json.loads(world.one("records/shelf/odd@*.json").read_bytes())
    assert [row[0] for row in record["files"]] == [name]
    assert not record["complete"]


@pytest.mark.parametrize("known_hash", [sha256(SMALL), md5(SMALL)])
def test_what_was_retrieved_comes_from_its_url_again(world: World, known_hash: str) -> None:
    url = world.site.url("/small").replace("http://", "http://user:secret@")
    for name in DATASETS:
        world.one(f"records/shelf/{name}@*.json").unlink()
    path = Cache().retrieve(url, known_hash, fname="kept.bin")
    flip(world.blob(SMALL))
    assert world.repair().corrupt == ()
    assert path.read_bytes() == SMALL
    assert world.verify().corrupt == ()
    assert b"secret" not in world.one("records/urls/*.json").read_bytes()


def test_a_url_that_may_hold_a_secret_is_not_recorded(world: World) -> None:
    url = f"{world.site.url('/other')}?signature=secret"
    Cache().retrieve(url, sha256(OTHER), fname="kept.bin")
    world.one("records/shelf/twin@*.json").unlink()
    flip(world.blob(OTHER))
    (left,) = world.repair().corrupt
    assert "may hold a secret" in left.problem
    assert b"secret" not in world.one("records/urls/*.json").read_bytes()


def test_a_manifest_names_its_files(world: World) -> None:
    rows = [{"path": f"{n}.bin", "size": len(SMALL), "hash": sha256(SMALL)} for n in range(3)]
    rows = [{**row, "urls": [world.site.url("/small")]} for row in rows]
    listing = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    (world.shelf.folder / "list.jsonl").write_bytes(listing)
    manifest = {"hash": sha256(listing), "size": len(listing), "urls": ["list.jsonl"]}
    world.shelf.write("many.toml", {"version": "1", "manifest": manifest})
    folder = Cache().fetch("many")
    for name in ("plain", "twin"):
        (world.shelf.folder / f"{name}.toml").unlink()
    for damaged in (SMALL, listing):
        flip(world.blob(damaged))
        found = world.repair()
        assert (found.corrupt, len(found.repaired)) == ((), 1)
        assert world.repair().repaired == ()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            f"{n}.bin": SMALL for n in range(3)
        }


def test_an_edited_hard_link_stays_the_users(world: World) -> None:
    project = Cache().fetch("plain", into=world.home / "project", link="hardlink")
    edit(project / "large.bin")
    edited = (project / "large.bin").read_bytes()
    (found,) = world.verify().corrupt
    assert "linked from outside the cache" in found.problem
    assert world.repair().corrupt == ()
    assert (project / "large.bin").read_bytes() == edited
    assert not os.path.samefile(project / "large.bin", world.blob(LARGE))
    assert any("stay as they are" in notice for notice in world.notices)
    world.check()


def test_what_no_record_names_is_found_and_moved_away(world: World) -> None:
    for name in ("twin", "pack"):
        world.one(f"records/shelf/{name}@*.json").unlink()
    assert world.verify().corrupt == ()
    wrong = [world.blob(OTHER), world.blob(TAR), world.one("trees/*/*/files/two.bin")]
    for path in wrong:
        flip(path)
    found = world.verify()
    assert {each.path for each in found.corrupt} == {str(path) for path in wrong}
    assert {each.datasets for each in found.corrupt} == {()}
    assert world.verify("plain").corrupt == ()
    assert world.repair().corrupt == ()
    assert len(world.quarantine) == 3
    assert world.verify().corrupt == ()
    Cache().fetch_many(DATASETS)
    world.check()


def test_the_command(world: World) -> None:
    run = CliRunner().invoke
    flip(world.blob(SMALL))
    done = run(cli, ["verify", "--repair", "--json", "--no-progress"], standalone_mode=False)
    document = json.loads(done.stdout)
    assert (document["corrupt"], done.return_value) == ([], 0)
    (repaired,) = document["repaired"]
    assert repaired["path"] == str(world.blob(SMALL))
    flip(world.blob(SMALL))
    for name in ("plain", "twin"):
        (world.shelf.folder / f"{name}.toml").unlink()
    done = run(cli, ["verify", "--repair", "--limit-rate", "1GB"], standalone_mode=False)
    assert done.return_value == 5
    assert "not given out" in done.stderr
    assert "shelf/plain@1" in done.stdout


def test_a_cache_that_cannot_be_written_is_verified(world: World) -> None:
    flip(world.blob(OTHER))
    folders = [world.cache, *(path for path in world.cache.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        found = unprivileged(lambda: in_another_boot(Cache().verify))
        assert [each.path for each in found.corrupt] == [str(world.blob(OTHER))]
        with pytest.raises(StorageError):
            unprivileged(lambda: Cache().verify(repair=True))
    finally:
        for folder in folders:
            folder.chmod(0o755)


# --- records --------------------------------------------------------------------------------------


def rewrite(path: Path, **changes: Any) -> None:
    """Change what a record says."""
    overwrite(path, json.dumps({**json.loads(path.read_bytes()), **changes}).encode())


def other_rows(rows: list[list[Any]], at: int, value: Any) -> list[list[Any]]:
    return [[*rows[0][:at], value, *rows[0][at + 1 :]], *rows[1:]]


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, "../../out.bin"), (1, "0" * 63), (1, "../" * 21), (2, 7), (2, -1), (3, "0" * 32), (3, "")],
)
def test_a_record_that_says_what_is_not_so(world: World, at: int, value: Any) -> None:
    path = world.one("records/shelf/plain@*.json")
    rows = json.loads(path.read_bytes())["files"]
    rewrite(path, files=other_rows(rows, at, value))
    before = len(world.site.requests)
    found = world.verify()
    assert {each.path for each in found.corrupt} <= {
        str(path),
        str(world.one("datasets/*/plain/*")),
    }
    assert str(path) in {each.path for each in found.corrupt}
    assert world.repair().corrupt == ()
    assert len(world.site.requests) == before
    assert world.blob(LARGE).read_bytes() == LARGE
    world.check()


def test_a_record_under_another_name(world: World) -> None:
    path = world.one("records/shelf/plain@*.json")
    rewrite(path, name="pack")
    (found,) = world.verify("plain").corrupt
    assert (found.path, found.datasets) == (str(path), ("shelf/plain@1",))
    assert world.repair("plain").corrupt == ()
    world.check()


def test_a_record_that_nobody_may_read_is_told(world: World) -> None:
    path = world.one("records/shelf/plain@*.json")
    path.chmod(0)
    found = unprivileged(lambda: Cache().verify(repair=True))
    assert [each.path for each in found.corrupt] == [str(path)]
    assert "Permission denied" in found.corrupt[0].problem
    path.chmod(0o644)
    world.check()


def test_a_blob_that_nobody_may_read_is_told_and_stays(world: World) -> None:
    world.blob(SMALL).chmod(0)
    found = unprivileged(lambda: Cache().verify(repair=True))
    assert [each.path for each in found.corrupt] == [str(world.blob(SMALL))]
    assert "Permission denied" in found.corrupt[0].problem
    world.blob(SMALL).chmod(0o444)
    assert world.verify().corrupt == ()


def test_a_record_whose_dataset_nobody_knows_stays(world: World) -> None:
    (world.shelf.folder / "plain.toml").unlink()
    path = world.one("records/shelf/plain@*.json")
    cut(path)
    before = path.read_bytes()
    (left,) = world.repair().corrupt
    assert left.datasets == ("shelf/plain@1",)
    assert path.read_bytes() == before


def test_a_record_of_content_that_is_no_more_stays(world: World) -> None:
    world.shelf.add("plain", [artifact("large.bin", LARGE, world.site.url("/large"))])
    cut(world.one("records/shelf/plain@*.json"))
    (left,) = world.repair().corrupt
    assert "other content" in left.problem


def test_a_file_that_is_no_record_is_told(world: World) -> None:
    (world.cache / "records/shelf/notes.json").write_text("mine")
    (found,) = world.repair().corrupt
    assert found.path.endswith("notes.json")
    assert world.verify("plain").corrupt == ()


# --- trust ----------------------------------------------------------------------------------------


def record_of(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.one(f"records/shelf/{name}@*.json").read_bytes())
    return found


def test_what_another_boot_wrote_is_marked_once_it_was_found_right(world: World) -> None:
    flip(world.blob(OTHER))

    assert not record_of(world, "plain")["durable"]
    forked(lambda: in_another_boot(Cache().verify))
    assert record_of(world, "plain")["durable"]
    assert record_of(world, "pack")["durable"]
    assert not record_of(world, "twin")["durable"]


def test_records_say_afterwards_what_they_said_before(world: World) -> None:
    before = {name: record_of(world, name) for name in DATASETS}
    for path in (world.blob(SMALL), world.one("trees/*/*/files/two.bin")):
        flip(path)
    world.repair()
    assert {name: record_of(world, name) for name in DATASETS} == before


def test_a_process_that_has_proven_a_record_does_so_again(world: World) -> None:
    """What is known of a record is not known of what a repair made of it."""
    with boot("another"):
        assert Cache().path("twin")
        flip(world.blob(OTHER))
        (world.shelf.folder / "twin.toml").rename(world.home / "twin.toml")
        assert world.repair().corrupt
        (world.home / "twin.toml").rename(world.shelf.folder / "twin.toml")
        with pytest.raises(NotCached):
            Cache().path("twin")


# --- beside others --------------------------------------------------------------------------------


def test_what_has_come_right_meanwhile_is_not_moved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch puts the right bytes there between the verification and the repair."""
    flip(world.blob(SMALL))
    from dscache.store.blobs import Blobs

    distrust = Blobs.distrust

    def meanwhile(blobs: Blobs, digest: str) -> None:
        distrust(blobs, digest)
        overwrite(world.blob(SMALL), SMALL)

    monkeypatch.setattr(Blobs, "distrust", meanwhile)
    before = len(world.site.requests)
    assert world.repair().corrupt == ()
    assert world.quarantine == []
    assert len(world.site.requests) == before


def _removed(world: World) -> None:
    Cache().prune(Cache().plan_prune(["twin", "pack"]))
    assert not list(world.cache.glob("records/shelf/twin*"))


def _removed_and_in_part_fetched(world: World) -> None:
    _removed(world)
    Cache().fetch("twin", files="other.bin")
    Cache().fetch("pack", files="two.bin")


def _garbage_removed(world: World) -> None:
    """The tree, which no record names."""
    time.sleep(0.01)  # what was written just now has no age at all
    Cache().prune(Cache().plan_prune())
    assert not list(world.cache.glob("trees/*/*"))


@pytest.mark.parametrize("meanwhile", [_removed, _removed_and_in_part_fetched, _garbage_removed])
def test_what_is_removed_meanwhile_is_no_damage(
    world: World, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[World], None]
) -> None:
    from dscache.verifying import checking

    (world.home / "config.toml").write_text('prune_grace = "0"\n')
    shutil.rmtree(world.cache / "leases")
    if meanwhile is _garbage_removed:
        world.one("records/shelf/pack*").unlink()
    units = checking.units

    def then(*arguments: Any, **keys: Any) -> Any:
        found = units(*arguments, **keys)
        meanwhile(world)
        return found

    monkeypatch.setattr(checking, "units", then)
    assert forked(lambda: Cache().verify()).corrupt == ()


def test_fetches_go_on_beside_repairs(world: World) -> None:
    """Whatever comes first: what a fetch gives out, it has from its source or has verified."""
    code = """
import dscache, sys
for _ in range(8):
    folder = dscache.fetch("plain")
    assert (folder / "large.bin").stat().st_size == 2 << 20
"""
    for _ in range(3):
        flip(world.blob(LARGE))
        flip(world.blob(SMALL))
        fetching = subprocess.Popen([sys.executable, "-c", code])
        try:
            found = world.repair()
            assert fetching.wait(60) == 0
        finally:
            fetching.kill()
            fetching.wait()
        assert found.corrupt == ()
        world.check()


# --- crashes --------------------------------------------------------------------------------------


@pytest.fixture
def still(world: World) -> World:
    """The same from files, so that a child needs no server, and kept as it is for each step."""
    for name, data in (("large", LARGE), ("small", SMALL), ("other", OTHER), ("pack.tar", TAR)):
        (world.shelf.folder / name).write_bytes(data)
    plain = [artifact("large.bin", LARGE, "large"), artifact("deep/small.bin", SMALL, "small")]
    world.shelf.add("plain", plain)
    world.shelf.add(
        "twin", [artifact("same.bin", SMALL, "small"), artifact("other.bin", OTHER, "other")]
    )
    world.shelf.add("pack", [artifact("pack.tar", TAR, "pack.tar", unpack="tar")])
    return world


def harm_all(world: World) -> None:
    for path in (world.blob(LARGE), world.blob(SMALL), world.one("trees/*/*/files/two.bin")):
        flip(path)
    world.one("datasets/shelf/twin/*/other.bin").unlink()
    cut(world.one("records/shelf/pack@*.json"))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["kill", "fail"])
def test_a_crash_at_any_step_of_a_repair(still: World, how: str) -> None:
    """Then a fetch gives out nothing damaged once its record was distrusted, and the next repair
    puts all right.
    """
    kept = still.home / "kept"
    harm_all(still)
    shutil.copytree(still.cache, kept, symlinks=True, copy_function=_linked(still))
    outcomes = []
    for at in itertools.count(1, 2 if how == "kill" else 5):
        shutil.rmtree(still.cache)
        shutil.copytree(kept, still.cache, symlinks=True, copy_function=_linked(still))
        outcomes.append(struck(Fault(at, how)))
        assert not outcomes[-1].startswith("the child ended")
        if at % 4 == 1:
            assert forked(lambda: given_out(still)) == []
        assert forked(lambda: Cache().verify(repair=True)).corrupt == ()
        forked(still.check)
        if outcomes[-1] == "done":
            break
    assert len(outcomes) > 15


def _linked(world: World) -> Callable[[str, str], object]:
    """Copies, of which those that were one file are one again."""
    made: dict[int, str] = {}

    def copied(source: str, target: str) -> object:
        found = os.stat(source)
        if found.st_ino in made and os.path.exists(made[found.st_ino]):
            os.link(made[found.st_ino], target)
        else:
            made[found.st_ino] = target
            shutil.copy2(source, target)
        return target

    return copied


def struck(fault: Fault) -> str:
    def child() -> str:
        taken = fault.arm()
        try:
            Cache().verify(repair=True)
        except DscacheError as error:
            return type(error).__name__
        return "done" if taken() < fault.at else "survived"

    try:
        return forked(child)
    except Died as error:
        return "killed" if error.code == KILLED else str(error)


def given_out(world: World) -> list[str]:
    """What is wrong with what fetches give out, of datasets whose records prove nothing."""
    wrong = []
    for name, files in DATASETS.items():
        (path,) = world.cache.glob(f"records/shelf/{name}@*.json")
        try:
            is_doubtful = not json.loads(path.read_bytes())["boot"]["host"]
        except ValueError:
            continue
        if is_doubtful:
            folder = Cache().fetch(name)
            wrong += [each for each, data in files.items() if (folder / each).read_bytes() != data]
    return wrong


def test_a_failing_disk_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that gives an error instead of bytes is damaged, and another one takes its place."""
    from dscache import digest

    bad, read = str(world.blob(SMALL)), digest._read
    inode = os.stat(bad).st_ino

    def failing(path: str, *arguments: Any) -> None:
        if os.path.exists(path) and os.stat(path).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        read(path, *arguments)

    monkeypatch.setattr(digest, "_read", failing)
    (found,) = world.verify().corrupt
    assert found.problem.startswith("cannot be read: Input/output error")
    assert world.repair().corrupt == ()
    assert os.stat(bad).st_ino != inode
    world.check()
