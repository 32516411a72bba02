"""Projects: add, remove, lock, sync; and what a name means where it is locked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dscache
from dscache import settings
from dscache.cache import Cache
from dscache.errors import (
    DscacheError,
    IntegrityError,
    InvalidFile,
    ManualDownload,
    NotCached,
    NotFound,
    StorageError,
    TransferError,
    UsageError,
)
from dscache.events import Event, Notice
from dscache.project.lockfile import Line, read
from dscache.results import Fetched, Relocked
from tests.archives import File, tar_of
from tests.children import Died, forked, unprivileged
from tests.making import Shelf, artifact, content, md5, sha256
from tests.origin import Refuse, Site, origin
from tests.servers import nginx
from tests.stores import KILLED, Fault, files_below

ONE, TWO, OTHER = content(20_000, 1), content(30_000, 2), content(20_000, 3)
TAR = tar_of(File("a.bin", content(5000, 4)), File("deep/b.bin", content(6000, 5)))
TOML, LOCK = "dscache.toml", "dscache.lock"


class Bench:
    """A project, a registry, and a server that has the bytes of its datasets."""

    def __init__(self, home: Path, site: Site) -> None:
        self.home, self.site = home, site
        self.shelf = Shelf(home / "shelf", "team")
        self.folder = home / "project"
        self.folder.mkdir()
        self.lock, self.toml = self.folder / LOCK, self.folder / TOML
        self.notices: list[str] = []
        self.arguments: dict[str, Any] = {"retries": 0, "prune_grace": 0}
        os.chdir(self.folder)

    def offer(self, name: str, data: bytes = ONE, version: str = "1", **keys: Any) -> None:
        """An entry of the registry, current and by its version; its bytes are served."""
        path = f"/{name}-{version}.bin"
        self.site.files[path] = data
        file = artifact(f"{name}.bin", data, self.site.url(path), **keys)
        for entry in (f"{name}.toml", f"{name}@{version}.toml"):
            self.shelf.add(name, [file], file=entry, version=version)

    def ask(self, **datasets: str) -> None:
        """What people write."""
        rows = "".join(f'"{name}" = "{version}"\n' for name, version in datasets.items())
        table = f'[registries]\nteam = "{self.shelf.folder}"\n[datasets]\n{rows}'
        self.toml.write_text(table)

    @property
    def cache(self) -> Cache:
        return Cache(settings=settings.load(**self.arguments))

    def hear(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.notices.append(event.message)

    def heard(self, *texts: str) -> bool:
        """True if one notice has all of these; then all are forgotten."""
        heard, self.notices = self.notices, []
        return any(all(text in notice for text in texts) for notice in heard)

    def relock(self) -> list[tuple[str, str | None, str | None]]:
        return changes(self.cache.lock(progress=self.hear))

    def sync(self, **options: Any) -> list[Fetched]:
        return self.cache.sync(progress=self.hear, **options)

    def fetch(self, name: str) -> bytes:
        return self.cache.fetch(name, progress=self.hear).read_bytes()

    def line(self, name: str) -> Line:
        found = read(str(self.lock))
        line = found.get(name) if found else None
        assert line is not None
        return line

    def forget(self) -> None:
        """The cache is empty again."""
        shutil.rmtree(self.home / "cache")

    def held(self) -> dict[str, tuple[str, ...]]:
        return {each.name: each.held_by for each in self.cache.usage().datasets}


def changes(found: Relocked) -> list[tuple[str, str | None, str | None]]:
    return [(each.name, each.before, each.after) for each in found.changed]


@pytest.fixture
def bench(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(home)
    with origin({}) as site:
        made = Bench(home, site)
        made.offer("crops")
        made.offer("fields", TWO)
        made.ask()
        yield made


def test_add_asks_and_locks(bench: Bench) -> None:
    assert changes(bench.cache.add("crops", "team/fields@1")) == [
        ("crops", None, "1"),
        ("team/fields", None, "1"),
    ]
    assert settings.load().datasets == {"crops": "*", "team/fields": "1"}
    text = bench.lock.read_text()
    for part in (sha256(ONE), sha256(TWO), str(len(TWO)), bench.site.url("/crops-1.bin"), "team"):
        assert part in text
    assert [json.loads(row)["format"] for row in text.splitlines()] == [1, 1]
    assert bench.site.requests == []


def test_add_makes_a_project_where_there_is_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = bench.home / "new"
    new.mkdir()
    monkeypatch.chdir(new)
    with pytest.raises(NotFound, match=r"no dscache\.toml"):
        bench.cache.lock()
    monkeypatch.setenv("DSCACHE_REGISTRIES", str(bench.shelf.folder))
    found = bench.cache.add("crops@1")
    assert found.path == str(new / LOCK)
    assert (new / TOML).read_text() == '[datasets]\ncrops = "1"\n'
    (new / "deep").mkdir()
    monkeypatch.chdir(new / "deep")
    bench.cache.add("fields")
    assert not list((new / "deep").iterdir())
    assert settings.load().datasets == {"crops": "1", "fields": "*"}


def test_what_is_not_found_changes_nothing(bench: Bench) -> None:
    bench.cache.add("crops")
    before = bench.toml.read_bytes(), bench.lock.read_bytes()
    with pytest.raises(NotFound, match="feilds"):
        bench.cache.add("fields", "feilds")
    with pytest.raises(NotFound, match="no version '9'"):
        bench.cache.add("fields@9")
    with pytest.raises(UsageError):
        bench.cache.add("fields@")
    with pytest.raises(NotFound) as failure:
        bench.cache.remove("crop")
    assert "crops" in failure.value.hint
    with pytest.raises(UsageError, match="version"):
        bench.cache.remove("crops@1")
    assert (bench.toml.read_bytes(), bench.lock.read_bytes()) == before


def test_a_second_add_is_of_the_same_dataset(bench: Bench) -> None:
    bench.cache.add("team/crops@1")
    assert changes(bench.cache.add("crops")) == []
    assert settings.load().datasets == {"team/crops": "1"}
    bench.offer("crops", TWO, "2")
    assert changes(bench.cache.add("crops@2")) == [("team/crops", "1", "2")]
    assert settings.load().datasets == {"team/crops": "2"}


def test_add_and_remove_move_nothing_else(bench: Bench) -> None:
    bench.cache.add("crops")
    bench.offer("crops", TWO, "2")
    assert changes(bench.cache.add("fields")) == [("fields", None, "1")]
    assert changes(bench.cache.remove("fields")) == [("fields", "1", None)]
    assert settings.load().datasets == {"crops": "*"}
    assert bench.line("crops").entry.version == "1"


def test_files_of_editors_on_windows_are_read_and_edited(bench: Bench, home: Path) -> None:
    """With a mark at the start, and two characters at the end of a line, which stay."""
    config = home / "config.toml"
    config.write_bytes(b"\xef\xbb\xbf# mine\r\njobs = 3\r\n")
    bench.toml.write_bytes(b"\xef\xbb\xbf" + bench.toml.read_bytes())
    bench.cache.add_registry("more", str(bench.shelf.folder))
    bench.cache.add("crops")
    found = settings.load()
    assert (found.jobs, dict(found.datasets)) == (3, {"crops": "*"})
    assert config.read_bytes().startswith(b"# mine\r\njobs = 3\r\n")


def test_remove_takes_the_name_without_its_registry(bench: Bench) -> None:
    bench.ask(**{"team/crops": "*", "lab/fields": "*", "team/fields": "*"})
    with pytest.raises(UsageError, match=r"lab/fields or team/fields"):
        bench.cache.remove("fields")
    bench.ask(**{"team/crops": "*", "team/fields": "*"})
    assert changes(bench.cache.remove("crops")) == [("team/fields", None, "1")]


def test_lock_says_what_has_changed(bench: Bench) -> None:
    bench.ask(crops="*", fields="1")
    assert bench.relock() == [("crops", None, "1"), ("fields", None, "1")]
    before = bench.lock.stat()
    assert bench.relock() == []
    assert bench.lock.stat().st_mtime_ns == before.st_mtime_ns
    bench.offer("crops", TWO, "2")
    bench.offer("fields", ONE, "2")
    assert bench.relock() == [("crops", "1", "2")]
    bench.ask(fields="2")
    assert bench.relock() == [("crops", "2", None), ("fields", "1", "2")]


def test_fetch_follows_the_lock_and_reads_no_registry(bench: Bench) -> None:
    bench.cache.add("crops")
    bench.offer("crops", TWO, "2")
    shutil.move(bench.shelf.folder, bench.home / "away")
    for name in ("crops", "team/crops", "crops@1", "team/crops@1"):
        assert bench.fetch(name) == ONE
        assert bench.cache.find(name).version == "1"
    assert bench.cache.info("crops").versions == ("1",)
    assert bench.notices == []
    with pytest.raises(DscacheError):
        bench.fetch("crops@2")
    shutil.move(bench.home / "away", bench.shelf.folder)
    assert bench.fetch("crops@2") == TWO
    assert bench.heard("crops@2 is not in dscache.lock")
    with bench.cache.hold("crops") as path:
        assert path.read_bytes() == ONE
    assert bench.cache.pin("crops").version == "1"


def test_what_is_not_locked_is_fetched_with_a_word(bench: Bench) -> None:
    bench.offer("crops", TWO, "2")
    bench.ask(**{"team/crops": "1"})
    assert bench.fetch("crops") == ONE
    assert bench.heard("crops is not in dscache.lock", "`dscache lock`")
    assert bench.fetch("crops@2") == TWO
    bench.relock()
    assert bench.fetch("fields") == TWO
    assert bench.heard("fields is not in dscache.lock", "`dscache add fields`")
    bench.ask(**{"team/crops": "2"})
    assert bench.fetch("crops") == ONE
    assert bench.heard("team/crops is locked as 1", "asks for 2")


def test_a_project_without_data_says_nothing(bench: Bench) -> None:
    assert bench.fetch("crops") == ONE
    assert bench.notices == []


def test_locked_allows_nothing_else(bench: Bench) -> None:
    bench.cache.add("crops")
    bench.toml.write_text("locked = true\n" + bench.toml.read_text())
    assert bench.fetch("crops") == ONE
    for name in ("fields", "crops@2", "other/crops"):
        with pytest.raises(NotFound, match=r"not in .*dscache\.lock"):
            bench.fetch(name)
    assert changes(bench.cache.add("fields")) == [("fields", None, "1")]
    assert bench.fetch("fields") == TWO
    assert bench.cache.verify(repair=True).corrupt == ()


def test_two_that_a_name_may_mean_are_told_apart(bench: Bench, home: Path) -> None:
    lab = Shelf(home / "lab", "lab")
    lab.add("crops", [artifact("crops.bin", OTHER, bench.site.url("/lab.bin"))])
    bench.site.files["/lab.bin"] = OTHER
    (home / "config.toml").write_text(f'[registries]\nlab = "{lab.folder}"')
    bench.cache.add("team/crops", "lab/crops")
    assert bench.fetch("lab/crops") == OTHER
    assert bench.fetch("team/crops") == ONE
    with pytest.raises(UsageError, match=r"lab/crops@1 or team/crops@1"):
        bench.fetch("crops")
    with pytest.raises(UsageError, match="one folder"):
        bench.sync(into="data")
    assert len(bench.sync()) == 2
    bench.cache.remove("lab/crops")
    assert bench.fetch("crops") == ONE


def test_a_dataset_stays_with_its_registry(bench: Bench, home: Path) -> None:
    """Another registry that comes to be asked first must not take the name over."""
    (home / "config.toml").write_text(f'[registries]\nteam = "{bench.shelf.folder}"')
    bench.toml.write_text("")
    bench.cache.add("crops")
    lab = Shelf(home / "lab", "lab")
    lab.add("crops", [artifact("crops.bin", OTHER, bench.site.url("/lab.bin"))], version="9")
    bench.toml.write_text(f'{bench.toml.read_text()}\n[registries]\nlab = "{lab.folder}"\n')
    assert bench.relock() == []
    bench.offer("crops", TWO, "2")
    assert bench.relock() == [("crops", "1", "2")]
    (home / "config.toml").write_text("")
    assert bench.relock() == []
    assert bench.heard("crops stays as it is locked, at 2", "no registry 'team'")


def test_sync_brings_all_and_keeps_it(bench: Bench) -> None:
    bench.ask(crops="*", fields="1")
    found = bench.sync()
    assert [(each.name, each.status, each.unwrap().read_bytes()) for each in found] == [
        ("crops", "downloaded", ONE),
        ("fields", "downloaded", TWO),
    ]
    asked = len(bench.site.requests)
    assert [each.status for each in bench.sync(locked=True)] == ["cached", "cached"]
    assert len(bench.site.requests) == asked
    project = f"the project {bench.folder} needs it"
    assert {name: project in by for name, by in bench.held().items()} == {
        "crops": True,
        "fields": True,
    }
    assert [each.key for each in bench.cache.usage("project").groups] == [
        f"the project {bench.folder}"
    ]


def test_a_prune_keeps_what_is_locked_and_no_more(bench: Bench) -> None:
    bench.ask(crops="*", fields="1")
    dscache_("sync")
    plan = bench.cache.plan_prune(all=True)
    assert {each.name: each.reason for each in plan.kept} == {
        f"team/{name}@1": f"the project {bench.folder} needs it" for name in ("crops", "fields")
    }
    dscache_("remove", "fields")
    done = bench.cache.prune(bench.cache.plan_prune(all=True))
    assert [each.name for each in done.removed if each.kind == "dataset"] == ["team/fields@1"]
    assert [each.name for each in done.kept] == ["team/crops@1"]
    shutil.rmtree(bench.folder)
    os.chdir(bench.home)
    (row,) = bench.cache.plan_prune(all=True).kept
    assert f"the project {bench.folder}, gone for" in row.reason


def test_what_sync_gives_needs_no_lease(bench: Bench) -> None:
    """A thousand of them would take longer than all else."""
    bench.ask(crops="*")
    bench.sync()
    hits = bench.cache.usage().counts.hits
    dscache_("sync", "--locked")
    bench.sync()
    assert not [path for path in files_below(bench.home / "cache/leases") if "team" in str(path)]
    assert bench.cache.usage().counts.hits == hits + 2


def test_a_cache_that_cannot_be_written_serves(bench: Bench) -> None:
    bench.ask(crops="*")
    bench.sync()
    bench.cache.remove("crops")
    bench.ask(crops="*")
    for folder in [bench.home / "cache", *(bench.home / "cache").rglob("*")]:
        if folder.is_dir():
            folder.chmod(0o555)

    def synced() -> tuple[bytes, list[str]]:
        (found,) = bench.sync()
        return found.unwrap().read_bytes(), bench.notices

    try:
        data, notices = unprivileged(synced)
    finally:
        for folder in [bench.home / "cache", *(bench.home / "cache").rglob("*")]:
            if folder.is_dir():
                folder.chmod(0o755)
    assert data == ONE
    assert any("a prune may take" in each for each in notices)


def test_sync_into_a_folder(bench: Bench) -> None:
    bench.ask(**{"crops": "*", "team/fields": "1"})
    for each in bench.sync(into="data"):
        assert each.unwrap().parent == bench.folder / "data" / each.name
    assert (bench.folder / "data/crops/crops.bin").read_bytes() == ONE
    assert (bench.folder / "data/fields/fields.bin").read_bytes() == TWO
    (bench.folder / "data/crops/crops.bin").unlink()
    (bench.folder / "data/crops/crops.bin").write_bytes(b"mine")
    crops, fields = bench.sync(into="data")
    assert isinstance(crops.error, StorageError)
    assert fields.error is None


def test_sync_locks_what_is_missing_and_moves_nothing_else(bench: Bench) -> None:
    bench.ask(crops="*", fields="1")
    bench.relock()
    bench.offer("crops", TWO, "2")
    bench.offer("fields", ONE, "2")
    bench.offer("more")
    bench.ask(crops="*", fields="2", more="*")
    assert [(each.name, each.version) for each in bench.sync()] == [
        ("crops", "1"),
        ("fields", "2"),
        ("more", "1"),
    ]
    assert bench.heard("dscache.lock", "fields 1 -> 2, more - -> 1")
    bench.ask(more="*")
    assert [each.name for each in bench.sync()] == ["more"]


@pytest.mark.parametrize(
    ("datasets", "text"),
    [
        ({"crops": "1", "fields": "*", "more": "*"}, "more is not locked"),
        ({"crops": "2", "fields": "*"}, "crops@2 is locked as 1"),
        ({"crops": "1"}, "fields is locked and not asked for"),
        ({"team/crops": "1", "fields": "*"}, "team/crops@1 is not locked"),
    ],
)
def test_sync_locked_refuses_what_differs(
    bench: Bench, datasets: dict[str, str], text: str
) -> None:
    bench.ask(crops="1", fields="*")
    bench.relock()
    before = bench.lock.read_bytes()
    bench.ask(**datasets)
    with pytest.raises(NotFound, match=text) as failure:
        bench.sync(locked=True)
    assert "dscache lock" in failure.value.hint
    assert bench.lock.read_bytes() == before
    assert bench.site.requests == []


def test_sync_locked_wants_a_lock(bench: Bench) -> None:
    assert bench.sync(locked=True) == []
    bench.ask(crops="1")
    with pytest.raises(NotFound, match="which is not there"):
        bench.sync(locked=True)
    assert not bench.lock.exists()
    bench.relock()
    bench.lock.write_text(bench.lock.read_text().replace("crops", "evil/../crops", 1))
    with pytest.raises(InvalidFile):
        bench.sync(locked=True)


def test_other_bytes_than_the_locked_ones_are_refused(bench: Bench) -> None:
    bench.ask(crops="1", fields="1")
    bench.relock()
    bench.site.files["/crops-1.bin"] = OTHER
    crops, fields = bench.sync(locked=True)
    assert isinstance(crops.error, IntegrityError)
    assert fields.unwrap().read_bytes() == TWO
    with pytest.raises(IntegrityError):
        bench.fetch("crops")


def test_other_content_under_a_version_stays_out(bench: Bench) -> None:
    bench.ask(crops="*")
    bench.sync()
    bench.offer("crops", OTHER)
    assert bench.relock() == []
    assert bench.heard("team/crops@1 has other content in its registry by now")
    assert bench.fetch("crops") == ONE
    bench.forget()
    (found,) = bench.sync(locked=True)
    assert isinstance(found.error, IntegrityError)
    bench.cache.remove("crops")
    bench.cache.add("crops")
    assert bench.fetch("crops") == OTHER


def test_new_mirrors_and_texts_are_taken(bench: Bench) -> None:
    bench.ask(crops="1")
    bench.relock()
    bench.site.files["/moved.bin"] = ONE
    moved = artifact("crops.bin", ONE, bench.site.url("/moved.bin"))
    bench.shelf.add("crops", [moved], file="crops@1.toml", summary="moved")
    assert bench.relock() == []
    assert bench.line("crops").entry.summary == "moved"
    bench.fetch("crops")
    assert [each.path for each in bench.site.requests] == ["/moved.bin"]


def test_a_registry_that_has_vanished_changes_nothing(bench: Bench) -> None:
    bench.ask(crops="*", fields="1")
    bench.relock()
    shutil.rmtree(bench.shelf.folder)
    assert bench.relock() == []
    assert bench.heard("crops stays as it is locked, at 1", "cannot be read")
    bench.toml.write_text('[datasets]\ncrops = "*"\nfields = "1"\n')
    assert bench.relock() == []
    assert [each.unwrap().read_bytes() for each in bench.sync(locked=True)] == [ONE, TWO]
    bench.toml.write_text('[datasets]\ncrops = "*"\nfields = "1"\n"team/more" = "*"\n')
    with pytest.raises(NotFound, match="no registry 'team'"):
        bench.relock()
    bench.toml.write_text('[datasets]\ncrops = "*"\nfields = "2"\n')
    with pytest.raises(NotFound, match="no registry 'team'"):
        bench.relock()


def test_a_dataset_that_has_vanished_stays(bench: Bench) -> None:
    bench.ask(crops="*")
    bench.relock()
    for path in bench.shelf.folder.glob("crops*"):
        path.unlink()
    assert bench.relock() == []
    assert bench.heard("crops stays as it is locked", "no dataset")
    assert bench.fetch("crops") == ONE


def test_a_registry_of_a_server_is_asked_anew(bench: Bench) -> None:
    with nginx(bench.shelf.folder, bench.home / "server") as server:
        bench.toml.write_text(f'[registries]\nteam = "{server.url}"\n')
        bench.cache.add("crops")
        assert bench.line("crops").address == server.url
        bench.offer("crops", TWO, "2")
        os.utime(bench.shelf.folder / "crops.toml", (1, 1))  # nginx tells them by second and size
        assert bench.relock() == [("crops", "1", "2")]
        asked = len(server.requests())
        assert bench.fetch("crops") == TWO
        (found,) = bench.sync(locked=True)
        assert found.status == "cached"
        assert len(server.requests()) == asked
    shutil.rmtree(bench.home / "cache/registries")
    assert bench.relock() == []
    assert bench.heard("crops stays as it is locked, at 2")
    bench.toml.write_text(bench.toml.read_text().replace("crops", "other"))
    with pytest.raises(TransferError):
        bench.relock()
    bench.toml.write_text('[datasets]\ncrops = "*"\n')
    bench.forget()
    assert bench.fetch("crops") == TWO


def test_what_only_a_weak_hash_names_is_pinned(bench: Bench) -> None:
    bench.offer("weak", hash=md5(ONE), size=None)
    bench.ask(weak="*")
    bench.relock()
    assert sha256(ONE) not in bench.lock.read_text()
    with pytest.raises(IntegrityError):
        raise_from(bench, "weak", OTHER)
    bench.sync(locked=True)
    assert sha256(ONE) not in bench.lock.read_text()
    (found,) = bench.sync()
    assert bench.line("weak").entry.artifacts[0].checksums == [sha256(ONE)]
    assert bench.line("weak").entry.artifacts[0].size == len(ONE)
    assert bench.sync()[0].unwrap() == found.unwrap()
    text = bench.lock.read_bytes()
    bench.forget()
    assert bench.relock() == []
    assert bench.lock.read_bytes() == text


def raise_from(bench: Bench, name: str, data: bytes) -> None:
    """Fetch while the server has these bytes."""
    path = f"/{name}-1.bin"
    right = bench.site.files[path]
    bench.site.files[path] = data
    try:
        bench.cache.fetch(name)
    finally:
        bench.site.files[path] = right


def test_another_file_of_the_same_weak_hash_is_not_it(bench: Bench, home: Path) -> None:
    """As somebody who can make two files with one xxh32 would have it: that is everybody."""
    import xxhash

    right = content(8, 1)
    hash_ = f"xxh32:{xxhash.xxh32_hexdigest(right)}"
    bench.offer("weak", right, hash=hash_, size=None)
    bench.ask(weak="*")
    bench.sync()
    twin = forged(b"evil", xxhash.xxh32_intdigest(right))
    assert xxhash.xxh32_hexdigest(twin) == hash_.removeprefix("xxh32:")
    bench.forget()
    os.chdir(home)
    bench.site.files["/weak-1.bin"] = twin
    (home / "config.toml").write_text(f'[registries]\nteam = "{bench.shelf.folder}"')
    assert bench.fetch("weak") == twin  # trusted on first use
    os.chdir(bench.folder)
    with pytest.raises(IntegrityError):
        bench.fetch("weak")
    bench.site.files["/weak-1.bin"] = right
    assert bench.fetch("weak") == right
    assert bench.fetch("weak") == right


def forged(start: bytes, wanted: int) -> bytes:
    """These four bytes, and four more that give it that xxh32: each of its steps can be undone."""
    prime2, prime3, prime4, prime5 = 2246822519, 3266489917, 668265263, 374761393
    mask = 0xFFFFFFFF

    def unshift(value: int, by: int) -> int:
        found = value
        for _ in range(32 // by + 1):
            found = value ^ (found >> by)
        return found

    before = prime5 + 8 + int.from_bytes(start, "little") * prime3 & mask
    before = (before << 17 | before >> 15) * prime4 & mask
    state = unshift(wanted, 16) * pow(prime3, -1, 1 << 32) & mask
    state = unshift(state, 13) * pow(prime2, -1, 1 << 32) & mask
    state = unshift(state, 15) * pow(prime4, -1, 1 << 32) & mask
    state = (state >> 17 | state << 15) & mask
    lane = (state - before) * pow(prime3, -1, 1 << 32) & mask
    return start + lane.to_bytes(4, "little")


def test_a_manifest_is_locked(bench: Bench) -> None:
    rows = [{"path": f"{n}.bin", "size": 100, "hash": sha256(content(100, n))} for n in range(20)]
    listing = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    bench.site.files |= {f"/many/{n}.bin": content(100, n) for n in range(20)}
    bench.site.files["/many.jsonl"] = listing
    manifest = {
        "hash": md5(listing),
        "urls": [bench.site.url("/many.jsonl")],
        "base_urls": [bench.site.url("/many/")],
    }
    bench.shelf.write("many.toml", {"version": "1", "manifest": manifest})
    bench.ask(many="*")
    (found,) = bench.sync()
    assert (found.unwrap() / "7.bin").read_bytes() == content(100, 7)
    entry = bench.line("many").entry
    assert entry.manifest is not None
    assert entry.manifest.checksums == [sha256(listing)]
    assert entry.manifest.size == len(listing)
    shutil.rmtree(bench.shelf.folder)
    bench.forget()
    (found,) = bench.sync(locked=True)
    assert (found.unwrap() / "19.bin").read_bytes() == content(100, 19)


def test_archives_are_unpacked_as_they_were_locked(bench: Bench) -> None:
    bench.offer("tar", TAR, unpack="tar", unpack_to="members", hash=md5(TAR))
    bench.ask(tar="1")
    bench.sync()
    bench.shelf.add("tar", [artifact("tar.bin", TAR, bench.site.url("/tar-1.bin"))])
    assert bench.relock() == []
    assert bench.line("tar").entry.artifacts[0].checksums == [sha256(TAR)]
    assert (bench.cache.fetch("tar") / "members/deep/b.bin").read_bytes() == content(6000, 5)


def test_what_was_withdrawn_is_served_with_a_word(bench: Bench) -> None:
    bench.ask(crops="1")
    bench.relock()
    file = artifact("crops.bin", ONE, bench.site.url("/crops-1.bin"))
    bench.shelf.add("crops", [file], file="crops@1.toml", yanked="labels are wrong")
    (found,) = bench.sync(locked=True)
    assert found.unwrap().read_bytes() == ONE
    assert bench.heard("withdrawn", "labels are wrong")
    bench.sync(locked=True)  # nothing is brought, and no registry asked
    assert not bench.heard("withdrawn")
    assert bench.relock() == []
    assert bench.heard("withdrawn", "labels are wrong")
    (found,) = bench.sync(locked=True)
    assert found.error is None
    assert bench.heard("withdrawn", "labels are wrong")


def test_a_folder_that_is_no_registry_here_has_no_files(bench: Bench, home: Path) -> None:
    (bench.shelf.folder / "near.bin").write_bytes(ONE)
    bench.shelf.add("near", [artifact("near.bin", ONE, "near.bin")])
    bench.ask(near="1")
    bench.relock()
    bench.toml.write_text('[datasets]\nnear = "1"\n')
    with pytest.raises(ManualDownload, match="not in use here"):
        bench.fetch("near")
    (home / "config.toml").write_text(f'[registries]\nteam = "{bench.shelf.folder}"')
    assert bench.fetch("near") == ONE
    (home / "config.toml").write_text("")
    assert bench.fetch("near") == ONE


def test_a_registry_that_is_elsewhere_by_now_is_named(bench: Bench) -> None:
    bench.ask(crops="*")
    bench.relock()
    other = bench.home / "other"
    shutil.move(bench.shelf.folder, other)
    bench.toml.write_text(bench.toml.read_text().replace(str(bench.shelf.folder), str(other)))
    assert bench.relock() == []
    assert bench.heard(f"team is {other} by now", f"locked from {bench.shelf.folder}")
    assert bench.relock() == []
    assert bench.notices == []


def test_a_project_moves_with_its_registry(bench: Bench) -> None:
    shutil.move(bench.shelf.folder, bench.folder / "data")
    (bench.folder / "data/near.bin").write_bytes(ONE)
    shelf = Shelf(bench.folder / "data", "team")
    shelf.add("near", [artifact("near.bin", ONE, "near.bin")])
    bench.toml.write_text('[datasets]\nnear = "1"\n[registries]\nteam = "data"\n')
    bench.relock()
    assert str(bench.home) not in bench.lock.read_text()
    shutil.move(bench.folder, bench.home / "elsewhere")
    os.chdir(bench.home / "elsewhere")
    (found,) = bench.sync(locked=True)
    assert found.unwrap().read_bytes() == ONE


def test_a_broken_lock_stops_all_but_lock(bench: Bench) -> None:
    bench.ask(crops="*", fields="*")
    bench.relock()
    bench.offer("fields", ONE, "2")
    right = bench.lock.read_bytes()
    crops, fields = right.splitlines(keepends=True)
    bench.lock.write_bytes(b"<<<<<<< ours\n" + crops + b"=======\n>>>>>>> theirs\n" + fields)
    for verb in (bench.sync, lambda: bench.cache.add("crops"), lambda: bench.fetch("crops")):
        with pytest.raises(InvalidFile, match=r"dscache\.lock: line 1") as failure:
            verb()
        assert "dscache lock" in failure.value.hint
    shutil.rmtree(bench.shelf.folder)
    assert bench.relock() == []
    assert bench.heard("line 1", "what can be used of it is kept")
    assert bench.lock.read_bytes() == right
    bench.lock.write_bytes(right + b'{"format": 2}\n')
    with pytest.raises(InvalidFile, match="format 2"):
        bench.relock()


def test_links_stay_links(bench: Bench) -> None:
    files = bench.home / "dotfiles"
    files.mkdir()
    shutil.move(bench.toml, files / TOML)
    bench.toml.symlink_to(files / TOML)
    bench.cache.add("crops")
    assert bench.toml.is_symlink()
    assert "crops" in (files / TOML).read_text()


def added(cache: Cache, fault: Fault) -> int:
    """How many steps it took."""
    taken = fault.arm()
    cache.add("fields")
    return taken()


@pytest.mark.parametrize("how", ["kill", "fail", "tear"])
def test_an_add_that_is_stopped_anywhere(bench: Bench, how: str) -> None:
    """The two files are old, new, or say what differs; where a step fails they are as before."""
    bench.cache.add("crops")
    before = bench.toml.read_bytes(), bench.lock.read_bytes()
    bench.cache.add("fields")
    after = bench.toml.read_bytes(), bench.lock.read_bytes()
    for at in range(1, 100):
        bench.toml.write_bytes(before[0])
        bench.lock.write_bytes(before[1])

        code = 0
        try:
            if forked(partial(added, bench.cache, Fault(at, how))) < at:
                break
        except Died as died:
            code = died.code
        except OSError:
            assert (bench.toml.read_bytes(), bench.lock.read_bytes()) == before
        found = bench.toml.read_bytes(), bench.lock.read_bytes()
        assert code in (0, KILLED)
        assert found[0] in (before[0], after[0])
        assert found[1] in (before[1], after[1])
        if found in (before, after):
            assert all(each.error is None for each in bench.sync(locked=True))
        else:
            with pytest.raises(NotFound, match="fields"):
                bench.sync(locked=True)
        assert {each.name for each in bench.sync()} >= {"crops"}
    else:
        pytest.fail("the steps have no end")


def test_many_locks_at_once(bench: Bench) -> None:
    bench.ask(crops="*", fields="*")
    command = [sys.executable, "-m", "dscache", "lock"]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: subprocess.run(command, check=False).returncode, range(4)))
    assert done == [0] * 4
    assert [each.error for each in bench.sync(locked=True)] == [None, None]
    assert {path.name for path in bench.folder.iterdir()} == {TOML, LOCK}


def dscache_(*words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "dscache", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_commands(bench: Bench) -> None:
    assert json.loads(dscache_("add", "crops", "fields@1", "--json")) == {
        "path": str(bench.lock),
        "changed": [
            {"name": "crops", "from": None, "to": "1"},
            {"name": "fields", "from": None, "to": "1"},
        ],
    }
    bench.offer("crops", TWO, "2")
    assert dscache_("lock") == "crops: 1 -> 2\n"
    found = json.loads(dscache_("sync", "--locked", "--into", "data", "--json"))
    assert [(each["name"], each["version"], each["status"]) for each in found] == [
        ("crops", "2", "downloaded"),
        ("fields", "1", "linked"),
    ]
    assert found[0]["path"] == str(bench.folder / "data/crops/crops.bin")
    assert found[0]["link"]
    assert dscache_("path", "fields").rstrip().endswith("fields.bin")
    assert dscache_("remove", "fields") == "fields: removed 1\n"
    bench.ask(crops="3")
    error = json.loads(dscache_("sync", "--locked", "--json", code=3))["error"]
    assert error["differing"] == ["crops@3 is locked as 2"]
    assert json.loads(dscache_("lock", "--json", code=3))["error"]["type"] == "NotFound"
    bench.ask(crops="2")
    bench.site.files["/crops-2.bin"] = content(len(TWO), 9)
    bench.forget()
    assert json.loads(dscache_("sync", "--locked", "--json", code=5))["error"]["code"] == 5
    bench.lock.write_text("nonsense")
    assert json.loads(dscache_("fetch", "crops", "--json", code=8))["error"]["file"]


def test_offline_what_is_here_is_synced(bench: Bench) -> None:
    bench.ask(crops="*")
    bench.sync()
    bench.arguments["offline"] = True
    (found,) = bench.sync(locked=True)
    assert found.status == "cached"
    bench.forget()
    (found,) = bench.sync(locked=True)
    assert isinstance(found.error, NotCached)


def test_repair_brings_what_was_locked(bench: Bench) -> None:
    bench.ask(crops="*")
    bench.sync()
    shutil.rmtree(bench.shelf.folder)
    bench.toml.write_text('[datasets]\ncrops = "*"\n')
    path = dscache.path("crops")
    path.chmod(0o644)
    path.write_bytes(OTHER)
    assert [each.datasets for each in bench.cache.verify(repair=True).repaired]
    assert dscache.path("crops").read_bytes() == ONE


def test_locked_bytes_that_gave_way_to_others_cannot_be_had(bench: Bench) -> None:
    bench.ask(crops="*", fields="*")
    bench.relock()
    bench.offer("crops", OTHER)
    bench.site.fault("/crops-1.bin", Refuse(404))
    bench.site.fault("/fields-1.bin", Refuse(404))
    crops, fields = bench.sync(locked=True)
    assert isinstance(crops.error, IntegrityError)
    assert "other content" in str(crops.error)
    assert isinstance(fields.error, TransferError)


def test_a_server_that_is_gone_is_an_error_of_one(bench: Bench) -> None:
    bench.ask(crops="*", fields="*")
    bench.relock()
    bench.site.fault("/crops-1.bin", Refuse(404))
    crops, fields = bench.sync(locked=True)
    assert isinstance(crops.error, TransferError)
    assert fields.unwrap().read_bytes() == TWO
