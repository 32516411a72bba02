"""Publishing, to a folder and to a real object store.

What is there afterwards is looked at by `Outside`, which reads files, or the bucket with boto3, and
knows the format from its description: it shares no code with what publishes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dscache import publishing, settings, signing
from dscache.cache import Cache
from dscache.depots import Depot, Listed, Stored, open_depot
from dscache.errors import (
    IntegrityError,
    InvalidFile,
    NotFound,
    TransferError,
    UnsafeError,
    UsageError,
)
from dscache.events import Event, Notice
from dscache.registry import author
from dscache.results import Publication
from tests.children import running
from tests.making import Shelf, artifact, content, md5
from tests.origin import origin
from tests.servers import nginx
from tests.stores import flip
from tests.weed import Weed

DATA = content(5000, 1)


class Outside:
    """A destination as somebody sees it who knows nothing of dscache."""

    def __init__(self, url: str, store: Weed | None) -> None:
        self.url = url
        self._store = store

    def files(self) -> dict[str, bytes]:
        """All files by their path."""
        if self._store is None:
            top = Path(self.url)
            found = {path.relative_to(top).as_posix(): path for path in top.rglob("*")}
            return {
                key: path.read_bytes()
                for key, path in found.items()
                if path.is_file() and not path.name.startswith(".dscache")
            }
        client, (bucket, prefix) = self._store.client(), self._place
        keys = self.keys()
        with ThreadPoolExecutor(8) as executor:
            bodies = executor.map(
                lambda key: client.get_object(Bucket=bucket, Key=prefix + key)["Body"].read(), keys
            )
            return dict(zip(keys, bodies, strict=True))

    def keys(self) -> list[str]:
        """The paths of all files."""
        if self._store is None:
            return list(self.files())
        client, (bucket, prefix) = self._store.client(), self._place
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = (each["Key"] for page in pages for each in page.get("Contents", ()))
        return [key.removeprefix(prefix) for key in found]

    def below(self, name: str) -> Outside:
        """Another destination."""
        return Outside(f"{self.url}/{name}", self._store)

    def put(self, key: str, data: bytes) -> None:
        """Put a file there by hand."""
        if self._store is None:
            path = Path(self.url, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            bucket, prefix = self._place
            self._store.client().put_object(Bucket=bucket, Key=prefix + key, Body=data)

    @property
    def _place(self) -> tuple[str, str]:
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        return bucket, f"{prefix}/"

    def index(self) -> dict[str, Any]:
        """The rows of its index."""
        found: dict[str, Any] = json.loads(self.files()["index.json"])["datasets"]
        return found


def faults(files: dict[str, bytes]) -> list[str]:
    """What a reader could stumble over: names whose bytes, versions or targets are not there."""
    found = []
    entries = {
        key: tomllib.loads(data.decode())
        for key, data in files.items()
        if key.endswith(".toml") and "/" not in key and key != "registry.toml"
    }
    if entries and "registry.toml" not in files:
        found.append("no registry.toml")
    for key, entry in entries.items():
        if "see" in entry:
            found += [f"{key}: no target"] if f"{entry['see']}.toml" not in entries else []
            continue
        version = f"{key.removesuffix('.toml').partition('@')[0]}@{entry['version']}.toml"
        found += [f"{key}: no {version}"] if version not in entries else []
        for each in entry["artifacts"]:
            known = each["hash"].removeprefix("sha256:")
            data = files.get(f"blobs/sha256/{known[:2]}/{known[2:]}")
            if each.get("blob") and (data is None or hashlib.sha256(data).hexdigest() != known):
                found.append(f"{key}: no {each['path']}")
    index = json.loads(files.get("index.json", b'{"datasets": {}}'))
    for name, row in index["datasets"].items():
        wanted = [name, *row["aliases"], *(f"{name}@{version}" for version in row["versions"])]
        found += [f"index: no {each}" for each in wanted if f"{each}.toml" not in entries]
    return found


def is_complete(files: dict[str, bytes], *names: str) -> bool:
    """True if there is nothing to stumble over, and the index lists these."""
    return not faults(files) and set(json.loads(files["index.json"])["datasets"]) >= set(names)


@pytest.fixture(params=["folder", "bucket"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Outside:
    """Where to publish to; nothing is there yet."""
    if request.param == "folder":
        return Outside(str(tmp_path / "public"), None)
    store: Weed = request.getfixturevalue("store")
    return Outside(f"{store.bucket()}/team/registry", store)


class Desk(Shelf):
    """The folder of an author."""

    def take(self, name: str, *data: bytes, version: str = "1", **keys: Any) -> None:
        """Write a version whose bytes the registry holds, as the current one, beside others."""
        artifacts = [
            artifact(f"{n}.bin", each, blob=True, urls=None) for n, each in enumerate(data)
        ]
        current = self.folder / f"{name}.toml"
        if current.exists():
            before = tomllib.loads(current.read_text())["version"]
            if before != version:
                (self.folder / f"{name}@{before}.toml").write_bytes(current.read_bytes())
        for each in data:
            self.blob(each).parent.mkdir(parents=True, exist_ok=True)
            self.blob(each).write_bytes(each)
        self.add(name, artifacts, version=version, **keys)

    def blob(self, data: bytes) -> Path:
        known = hashlib.sha256(data).hexdigest()
        return self.folder / "blobs" / "sha256" / known[:2] / known[2:]

    def publish(self, there: Outside, **options: Any) -> Publication:
        return Cache().publish(self.folder, there.url, **options)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An author's registry: two datasets, one in two versions, and another name."""
    desk = Desk(tmp_path / "desk", "team")
    desk.take("crops", DATA, content(300, 2))
    desk.take("crops", DATA, content(300, 3), version="2")
    desk.take("trees", content(40, 4), summary="Some trees")
    desk.write("plants.toml", {"see": "crops"})
    return desk


def desk_of(folder: Path, name: str = "team") -> Desk:
    return Desk(folder, name)


def reader(home: Path, url: str, number: int = 0) -> Cache:
    """Somebody else, with a cache of his own."""
    folder = str(home / f"reader{number}")
    return Cache(
        settings=settings.load(cache_dir=folder, registry_max_age="0", registries={"team": url})
    )


def author_signs(desk: Desk, home: Path) -> None:
    """From now on the registry is published signed, with keys in the user's folder."""
    keys = signing.keys_of(settings.load(), "team")
    assert keys.where.startswith(str(home))
    signing.init(str(desk.folder), keys)


class TestRoundTrip:
    def test_what_is_published_is_fetched(self, desk: Desk, there: Outside, home: Path) -> None:
        done = desk.publish(there)
        assert (done.uploaded, done.skipped, done.bytes) == (4, 0, 5000 + 300 + 300 + 40)
        assert sorted(done.published) == ["crops@1", "crops@2", "trees@1"]
        assert is_complete(there.files(), "crops", "trees")
        (home / "config.toml").write_text('registry_max_age = "0"\n')
        other = Cache(home / "other")
        other.add_registry("ours", there.url)
        assert (other.fetch("ours/crops") / "0.bin").read_bytes() == DATA
        assert (other.fetch("plants@1") / "1.bin").read_bytes() == content(300, 2)
        assert other.info("crops").versions == ("1", "2")
        assert {each.name for each in other.available("trees")} == {"trees"}

    def test_a_web_server_serves_it_too(self, desk: Desk, tmp_path: Path, home: Path) -> None:
        desk.publish(Outside(str(tmp_path / "www" / "r"), None))
        with nginx(tmp_path / "www", tmp_path / "nginx") as server:
            found = Cache(home / "other")
            found.add_registry("ours", f"{server.url}/r")
            assert (found.fetch("crops") / "0.bin").read_bytes() == DATA

    def test_the_second_time_there_is_nothing_to_do(self, desk: Desk, there: Outside) -> None:
        desk.publish(there)
        before = there.files()
        done = desk.publish(there)
        assert (done.uploaded, done.skipped, done.bytes, done.published) == (0, 4, 0, ())
        assert done.changes == ()
        assert there.files() == before

    def test_one_new_dataset_moves_only_its_bytes(self, desk: Desk, there: Outside) -> None:
        desk.publish(there)
        desk.take("new", content(77, 9), DATA)
        done = desk.publish(there)
        assert (done.uploaded, done.skipped, done.bytes) == (1, 4, 77)
        assert done.published == ("new@1",)
        assert is_complete(there.files(), "crops", "trees", "new")

    def test_a_dry_run_changes_nothing(self, desk: Desk, there: Outside) -> None:
        planned = desk.publish(there, dry_run=True)
        assert there.files() == {}
        done = desk.publish(there)
        assert planned == done
        kinds = [each.kind for each in done.changes]
        assert kinds == [
            *["upload"] * 4,
            *["registry", "version", "version", "version"],
            *["current", "current", "other name"],
        ]

    def test_datasets_of_others_stay(self, desk: Desk, there: Outside, tmp_path: Path) -> None:
        desk.publish(there)
        other = desk_of(tmp_path / "other")
        other.take("stones", content(9, 9))
        other.publish(there)
        assert set(there.index()) == {"crops", "trees", "stones"}
        assert is_complete(there.files(), "crops", "trees", "stones")

    def test_what_an_author_removes_stays(self, desk: Desk, there: Outside) -> None:
        desk.publish(there)
        (desk.folder / "trees.toml").unlink()
        desk.publish(there)
        assert is_complete(there.files(), "crops", "trees")

    def test_a_large_file_goes_in_parts(self, there: Outside, tmp_path: Path) -> None:
        desk = desk_of(tmp_path / "desk")
        desk.take("large", content(40 << 20, 1))
        desk.publish(there)
        assert is_complete(there.files(), "large")


class TestVersions:
    def test_a_new_version_becomes_current(self, desk: Desk, there: Outside, home: Path) -> None:
        desk.publish(there)
        desk.take("trees", content(50, 5), version="2")
        done = desk.publish(there)
        assert done.published == ("trees@2",)
        assert there.index()["trees"]["versions"] == ["1", "2"]
        other = reader(home, there.url)
        assert other.fetch("trees").read_bytes() == content(50, 5)
        assert other.fetch("trees@1").read_bytes() == content(40, 4)

    @pytest.mark.parametrize("is_current", [True, False])
    def test_other_bytes_under_a_version_are_refused(
        self, desk: Desk, there: Outside, is_current: bool
    ) -> None:
        desk.publish(there)
        before = there.files()
        desk.take("trees", content(50, 5), version="1" if is_current else "2")
        if not is_current:
            other = content(60, 6)
            desk.blob(other).parent.mkdir(exist_ok=True)
            desk.blob(other).write_bytes(other)
            each = artifact("0.bin", other, blob=True, urls=None)
            desk.add("trees", [each], file="trees@1.toml")
        desk.take("new", content(70, 7))
        with pytest.raises(IntegrityError, match="trees@1 is published") as caught:
            desk.publish(there)
        assert caught.value.code == 5
        assert there.files() == before

    def test_a_version_of_which_only_the_pointer_is_there(self, desk: Desk, there: Outside) -> None:
        """As somebody has put it who copied a folder by hand."""
        for path in desk.folder.rglob("*"):
            if path.is_file():
                there.put(path.relative_to(desk.folder).as_posix(), path.read_bytes())
        done = desk.publish(there)
        assert (done.uploaded, done.skipped) == (0, 4)
        assert is_complete(there.files(), "crops", "trees")
        desk.take("trees", content(50, 5))
        with pytest.raises(IntegrityError, match="trees@1 is published"):
            desk.publish(there)

    def test_an_older_folder_takes_nothing_back(
        self, desk: Desk, there: Outside, tmp_path: Path
    ) -> None:
        older = desk_of(tmp_path / "older")
        older.take("trees", content(40, 4), summary="Some trees")
        older.publish(there)
        desk.take("trees", content(50, 5), version="2")
        desk.publish(there)
        before = there.files()
        older.take("stones", content(9, 9))
        with pytest.raises(TransferError, match=r"trees@2 is the current version") as caught:
            older.publish(there)
        assert caught.value.code == 4
        assert "trees@2.toml" in caught.value.hint
        assert there.files() == before
        # As the hint says: then he knows it, and may go on, or back.
        (older.folder / "trees@2.toml").write_bytes(before["trees@2.toml"])
        older.blob(content(50, 5)).parent.mkdir(exist_ok=True)
        older.blob(content(50, 5)).write_bytes(content(50, 5))
        assert older.publish(there).published == ("stones@1",)
        assert there.index()["trees"]["version"] == "1"
        assert is_complete(there.files(), "crops", "trees", "stones")

    def test_texts_and_mirrors_may_change(self, desk: Desk, there: Outside) -> None:
        desk.publish(there)
        desk.add(
            "trees",
            [artifact("0.bin", content(40, 4), "https://x.example/0.bin", blob=True)],
            summary="Trees",
        )
        done = desk.publish(there)
        assert done.published == ("trees@1",)
        assert [(each.kind, each.new) for each in done.changes] == [
            ("version", False),
            ("current", False),
        ]
        assert there.index()["trees"]["summary"] == "Trees"
        assert b"x.example" in there.files()["trees@1.toml"]

    def test_a_reader_is_told_that_a_version_is_withdrawn(
        self, desk: Desk, there: Outside, home: Path
    ) -> None:
        desk.publish(there)
        other = reader(home, there.url)
        other.fetch("trees")
        author.yank(str(desk.folder), "trees", "1", "wrong units")
        assert desk.publish(there).published == ("trees@1",)
        heard: list[Event] = []
        for name in ("trees", "trees@1"):
            found = reader(home, there.url, 1).fetch(name, progress=heard.append)
            assert found.read_bytes() == content(40, 4)
        assert any("wrong units" in each.message for each in heard if isinstance(each, Notice))

    def test_a_name_does_not_become_another_thing(
        self, desk: Desk, there: Outside, tmp_path: Path
    ) -> None:
        desk.publish(there)
        other = desk_of(tmp_path / "other")
        other.take("plants", content(9, 9))
        with pytest.raises(InvalidFile, match="plants is a dataset in one"):
            other.publish(there)

    def test_an_alias_may_mean_another_dataset(self, desk: Desk, there: Outside) -> None:
        desk.publish(there)
        desk.write("plants.toml", {"see": "trees"})
        desk.publish(there)
        found = there.index()
        assert (found["crops"]["aliases"], found["trees"]["aliases"]) == ([], ["plants"])

    def test_another_registry_is_not_overwritten(
        self, desk: Desk, there: Outside, tmp_path: Path
    ) -> None:
        desk.publish(there)
        with pytest.raises(InvalidFile, match="holds the registry 'team', not 'others'"):
            desk_of(tmp_path / "others", "others").publish(there)


class TestWhatGoes:
    def test_errors_of_the_registry(self, desk: Desk, there: Outside) -> None:
        (desk.folder / "broken.toml").write_text("version = ")
        with pytest.raises(InvalidFile, match=r"broken\.toml") as caught:
            desk.publish(there)
        assert caught.value.code == 8
        assert there.files() == {}

    def test_no_folder(self, there: Outside, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            Cache().publish(tmp_path / "nowhere", there.url)

    def test_a_local_file_is_refused(self, desk: Desk, there: Outside, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(DATA)
        url = (tmp_path / "a.csv").as_uri()
        desk.add("local", [artifact("a.csv", DATA, url)])
        with pytest.raises(UnsafeError, match="names a local file"):
            desk.publish(there)
        assert there.files() == {}
        desk.publish(there, with_blobs=True)
        published = there.files()["local.toml"]
        assert b"file:" not in published
        assert is_complete(there.files(), "local")
        assert b"file:" in (desk.folder / "local.toml").read_bytes()

    def test_files_of_the_folder_become_blobs(self, desk: Desk, there: Outside, home: Path) -> None:
        (desk.folder / "data").mkdir()
        (desk.folder / "data" / "a b.csv").write_bytes(DATA)
        each = artifact("a.csv", DATA, "data/a%20b.csv", hash=md5(DATA))
        desk.add("inside", [each])
        desk.publish(there)
        assert reader(home, there.url).fetch("inside").read_bytes() == DATA
        (desk.folder / "data" / "a b.csv").write_bytes(b"other")
        desk.add("inside", [each], version="2")
        with pytest.raises(IntegrityError, match="is not md5"):
            desk.publish(there)

    def test_with_blobs_what_is_elsewhere_is_brought(
        self, desk: Desk, there: Outside, home: Path
    ) -> None:
        weak = content(900, 8)
        with origin({"/a.csv": DATA[:100], "/b.csv": content(200, 7), "/weak": weak}) as site:
            urls = [site.url("/a.csv"), site.url("/b.csv")]
            parts = zip(("a.csv", "b.csv"), (DATA[:100], content(200, 7)), urls, strict=True)
            desk.add("far", [artifact(*each) for each in parts])
            desk.add("weak", [artifact("w", weak, site.url("/weak"), hash=md5(weak))])
            desk.add("hand", [artifact("h", b"h", urls=None, manual="Ask.")])
            heard: list[Event] = []
            done = desk.publish(there, with_blobs=True, progress=heard.append)
            asked = len(site.requests)
            assert desk.publish(there, with_blobs=True).changes == ()
            assert len(site.requests) == asked
        assert done.uploaded == 6
        assert [each.message for each in heard if isinstance(each, Notice)] == [
            "weak/w stays at its URLs: a blob needs a sha256, and nothing here knows it"
        ]
        assert is_complete(there.files(), "far", "weak", "hand")
        other = reader(home, there.url)  # the origin is gone
        assert (other.fetch("far") / "b.csv").read_bytes() == content(200, 7)
        assert b"blob" not in (desk.folder / "far.toml").read_bytes()
        # Without the option later: what is there is there.
        assert desk.publish(there).changes == ()
        author.yank(str(desk.folder), "far", "1", "old")
        desk.publish(there)
        assert b"blob = true" in there.files()["far@1.toml"]

    def test_with_blobs_what_cannot_be_brought(self, desk: Desk, there: Outside) -> None:
        with origin({}) as site:
            desk.add("far", [artifact("a.csv", DATA[:100], site.url("/a.csv"))])
            with pytest.raises(TransferError, match=r"a\.csv"):
                desk.publish(there, with_blobs=True)
        assert faults(there.files()) == []

    @pytest.mark.parametrize("url", ["images/", "nothing.csv"])
    def test_what_would_be_missing_is_refused(self, desk: Desk, there: Outside, url: str) -> None:
        if url == "images/":
            lines = {"hash": "sha256:" + "ab" * 32, "urls": ["https://x.example/m"]}
            desk.write("bad.toml", {"version": "1", "manifest": {**lines, "base_urls": [url]}})
        else:
            desk.add("bad", [artifact("a", b"a", url)])
        with pytest.raises(InvalidFile, match="relative to the registry"):
            desk.publish(there)
        assert there.files() == {}

    @pytest.mark.parametrize("size", [300, 20 << 20])
    def test_rotten_bytes_are_not_uploaded(self, there: Outside, tmp_path: Path, size: int) -> None:
        desk = desk_of(tmp_path / "desk")
        desk.take("crops", content(size, 3))
        flip(desk.blob(content(size, 3)))
        with pytest.raises(IntegrityError, match="was not uploaded") as caught:
            desk.publish(there)
        assert caught.value.code == 5
        assert there.files() == {}

    def test_nowhere_to_publish_to(self, desk: Desk) -> None:
        with pytest.raises(UsageError, match="nothing can be put"):
            Cache().publish(desk.folder, "https://x.example/registry")


class Dying:
    """A depot whose user dies before the step of that number: from then on nothing is done."""

    def __init__(self, depot: Depot, last: int) -> None:
        self._depot = depot
        self._left = last
        self.url = depot.url

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Death

    def read(self, key: str, limit: int) -> Stored | None:
        return self._depot.read(key, limit)

    def size(self, key: str) -> int | None:
        return self._depot.size(key)

    def list(self, prefix: str) -> Iterator[Listed]:
        return self._depot.list(prefix)

    def create(self, key: str, data: bytes) -> bool:
        self._step()
        return self._depot.create(key, data)

    def replace(self, key: str, data: bytes, version: str) -> bool:
        self._step()
        return self._depot.replace(key, data, version)

    def upload(self, key: str, chunks: Iterable[bytes], size: int) -> None:
        self._step()
        self._depot.upload(key, chunks, size)

    def remove(self, keys: Iterable[str]) -> None:
        self._step()
        self._depot.remove(keys)


def _dying(url: str, last: int) -> Depot:
    return Dying(open_depot(url), last)


class Death(Exception):
    """What nobody catches."""


def _killed_everywhere(desk: Desk, there: Outside, monkeypatch: pytest.MonkeyPatch) -> int:
    """Kill a publisher before each of his steps, at a destination that has something already; the
    number of steps.
    """
    files = [desk.folder / "crops.toml", desk.folder / "crops@1.toml", desk.folder / "plants.toml"]
    later = [(path, path.read_bytes()) for path in files]
    for path in files:
        path.unlink()
    desk.publish(there)
    before = there.files()
    for path, data in later:
        path.write_bytes(data)
    for last in range(100):
        each = there.below(str(last))
        for key, data in before.items():
            each.put(key, data)
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "open_depot", partial(_dying, last=last))
            try:
                desk.publish(each)
            except Death:
                assert is_complete(each.files(), "trees")
            else:
                assert desk.publish(each).changes == ()
                return last
        desk.publish(each)
        assert is_complete(each.files(), "crops", "trees")
    raise AssertionError("never done")


def test_one_who_is_killed_at_any_step_leaves_nothing_half(
    desk: Desk, there: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _killed_everywhere(desk, there, monkeypatch) == 8


def test_one_who_signs_and_is_killed_at_any_step_leaves_nothing_half(
    desk: Desk, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tuf", reason="tuf is not installed")
    author_signs(desk, home)
    there = Outside(str(home / "public"), None)
    assert _killed_everywhere(desk, there, monkeypatch) > 8
    other = Cache(home / "other")
    other.add_registry("ours", f"{there.url}/3")
    assert (other.fetch("ours/crops") / "0.bin").read_bytes() == DATA


COMMAND = (sys.executable, "-m", "dscache", "registry", "publish", "--no-progress", "--json")


#: Publishes each of the folders in a process of its own, all at once; prints their exit codes.
PUBLISH = """
import os, sys
from dscache import publishing
from dscache.cache import Cache
from dscache.errors import DscacheError

def publish(folder):
    try:
        Cache().publish(folder, sys.argv[1])
    except DscacheError as error:
        return error.code if "you do not have it" in str(error) else 1
    return 0

pids = []
for folder in sys.argv[2:]:
    pids.append(os.fork())
    if not pids[-1]:
        os._exit(publish(folder))
print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_many_publishers_at_once(store: Weed, tmp_path: Path) -> None:
    """Sixteen have a dataset each, and sixteen another version of the same: one of them wins."""
    there = Outside(f"{store.bucket()}/r", store)
    first = desk_of(tmp_path / "first")
    first.take("same", content(10, 0), version="0")
    first.publish(there)
    desks = [desk_of(tmp_path / f"desk{number}") for number in range(32)]
    for number, desk in enumerate(desks):
        if number % 2:
            desk.take(f"own{number}", content(1000, number), DATA)
        else:
            desk.take("same", content(10, 0), version="0")
            desk.take("same", content(1000, number), version=f"v{number}")
    with running(PUBLISH, there.url, *(str(desk.folder) for desk in desks)) as process:
        output, errors = process.communicate(timeout=100)
    codes = [int(code) for code in output.split()]
    assert codes[1::2] == [0] * 16, errors
    assert sorted(codes[::2]) == [0] + [4] * 15, errors
    assert is_complete(there.files(), *(f"own{number}" for number in range(1, 32, 2)))
    assert there.index()["same"]["version"] == f"v{2 * codes[::2].index(0)}"


def test_publishers_who_agree_all_succeed(there: Outside, desk: Desk) -> None:
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda _: desk.publish(there), range(4)))
    assert is_complete(there.files(), "crops", "trees")
    assert desk.publish(there).changes == ()


def test_publishers_of_different_datasets_in_a_folder(tmp_path: Path) -> None:
    there = Outside(str(tmp_path / "public"), None)
    desks = [desk_of(tmp_path / f"desk{number}") for number in range(4)]
    for number, desk in enumerate(desks):
        desk.take(f"own{number}", content(1000, number))
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda desk: desk.publish(there), desks))
    assert is_complete(there.files(), *(f"own{number}" for number in range(4)))


def _is_blob(key: str) -> bool:
    return re.fullmatch("blobs/sha256/[0-9a-f]{2}/[0-9a-f]{62}", key) is not None


def test_a_killed_process_is_finished_by_the_next(there: Outside, tmp_path: Path) -> None:
    desk = desk_of(tmp_path / "desk")
    for number in range(4):
        desk.take(f"set{number}", *(content(1 << 20, 10 * number + n) for n in range(4)))
    for attempt in range(2):
        process = subprocess.Popen([*COMMAND, str(desk.folder), "--to", there.url])
        while process.poll() is None and sum(map(_is_blob, there.keys())) <= 6 * attempt + 2:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert faults(there.files()) == []
    assert desk.publish(there).skipped > 0
    assert is_complete(there.files(), *(f"set{number}" for number in range(4)))


def test_ctrl_c_says_what_is_there(there: Outside, tmp_path: Path) -> None:
    desk = desk_of(tmp_path / "desk")
    desk.take("large", *(content(1 << 20, n) for n in range(40)))
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if type(event).__name__ == "Finished":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        desk.publish(there, progress=hear)
    (notice,) = (each.message for each in heard if isinstance(each, Notice))
    assert "of 40 files of data and 0 of 3 entries are at" in notice
    assert "large.toml" not in there.files()
    desk.publish(there)
    assert is_complete(there.files(), "large")


def test_ctrl_c_does_not_wait_for_a_server_that_never_answers(
    desk: Desk, store: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for its timeouts, which are minutes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        process = started(desk, "s3://bucket/r")
        with silent.accept()[0]:
            assert interrupted(process)


def test_ctrl_c_does_not_wait_for_a_server_that_answers_no_more(
    store: Weed, tmp_path: Path
) -> None:
    there = Outside(store.bucket() + "/r", store)
    desk = desk_of(tmp_path / "desk")
    desk.take("large", *(content(1 << 20, n) for n in range(40)))
    process = started(desk, there.url)
    while process.poll() is None and len(there.keys()) < 3:
        time.sleep(0.01)
    with store.stopped():
        assert interrupted(process)
    assert faults(there.files()) == []


def started(desk: Desk, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, str(desk.folder), "--to", url], stdout=subprocess.PIPE)


def interrupted(process: subprocess.Popen[bytes]) -> bool:
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    code: int = json.loads(output)["error"]["code"]
    return code == process.returncode == 130


class TestWhoMayNot:
    def test_a_wrong_secret(self, desk: Desk, store: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
        there = Outside(store.bucket() + "/r", store)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
        with pytest.raises(TransferError, match="access denied") as caught:
            desk.publish(there)
        assert "not-the-secret" not in f"{caught.value} {caught.value.facts} {caught.value.hint}"

    def test_one_who_may_only_read(
        self, desk: Desk, store: Weed, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = Outside(store.bucket() + "/r", store)
        desk.publish(there)
        desk.take("new", content(9, 9))
        before = there.files()
        for name, value in store.environment(reader=True).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(TransferError, match="access denied"):
            desk.publish(there)
        assert there.files() == before
        assert (reader(home, there.url).fetch("crops") / "0.bin").read_bytes() == DATA


class TestSigned:
    @pytest.fixture(autouse=True)
    def signs(self, desk: Desk, home: Path) -> None:
        pytest.importorskip("tuf", reason="tuf is not installed")
        author_signs(desk, home)

    def test_what_is_published_is_believed(self, desk: Desk, there: Outside, home: Path) -> None:
        desk.publish(there)
        (home / "config.toml").write_text('registry_max_age = "0"\n')
        other = Cache(home / "other")
        assert other.add_registry("ours", there.url).root
        assert (other.fetch("ours/crops") / "0.bin").read_bytes() == DATA
        desk.take("trees", content(50, 5), version="2")
        author.yank(str(desk.folder), "crops", "2", "wrong units")
        assert sorted(desk.publish(there).published) == ["crops@2", "trees@2"]
        heard: list[Event] = []
        other.fetch("crops", refresh=True, progress=heard.append)
        assert any("wrong units" in each.message for each in heard if isinstance(each, Notice))
        assert other.fetch("trees").read_bytes() == content(50, 5)
        assert {each.name for each in other.available()} >= {"crops", "trees"}
        files = there.files()
        assert is_complete(files, "crops", "trees")
        signed = {key.partition(".")[2] for key in files if key.startswith("targets/")}
        assert signed >= {"crops.toml", "crops@2.toml", "trees@1.toml", "index.json"}

    def test_publishing_again_renews_what_would_expire(self, desk: Desk, there: Outside) -> None:
        desk.publish(there)
        before = there.files()
        assert desk.publish(there).changes == ()
        after = there.files()
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert changed == {"metadata/timestamp.json"}

    def test_two_who_sign_at_once(self, desk: Desk, there: Outside, tmp_path: Path) -> None:
        desks = [desk]
        for number in range(3):
            desks.append(desk_of(tmp_path / f"desk{number}"))
            shutil.copytree(desk.folder / "metadata", desks[-1].folder / "metadata")
            desks[-1].take(f"own{number}", content(1000, number))
        desk.publish(there)
        desk.take("trees", content(50, 5), version="2")
        with ThreadPoolExecutor(4) as executor:
            list(executor.map(lambda each: each.publish(there), desks))
        names = ("crops", "trees", "own0", "own1", "own2")
        assert is_complete(there.files(), *names)
        other = Cache(tmp_path / "other")
        other.add_registry("ours", there.url)
        assert {each.name for each in other.available()} >= set(names)
        for name in names:
            other.fetch(f"ours/{name}")

    def test_without_keys_nothing_is_uploaded(self, desk: Desk, there: Outside, home: Path) -> None:
        shutil.rmtree(home / "keys")
        with pytest.raises(UsageError):
            desk.publish(there)
        assert there.files() == {}

    def test_who_does_not_sign_is_refused(self, desk: Desk, there: Outside, tmp_path: Path) -> None:
        desk.publish(there)
        before = there.files()
        other = desk_of(tmp_path / "other")
        other.take("stones", content(9, 9))
        with pytest.raises(IntegrityError, match="is signed, and the registry in"):
            other.publish(there)
        assert there.files() == before

    def test_what_was_published_unsigned_is_signed(
        self, desk: Desk, there: Outside, tmp_path: Path
    ) -> None:
        (desk.folder / "metadata").rename(tmp_path / "metadata")
        desk.publish(there)
        (tmp_path / "metadata").rename(desk.folder / "metadata")
        assert desk.publish(there).changes == ()
        other = Cache(tmp_path / "other")
        assert other.add_registry("ours", there.url).root
        assert (other.fetch("ours/crops") / "0.bin").read_bytes() == DATA


class Counting(Dying):
    """A depot that counts what it is asked for, and never dies."""

    def __init__(self, depot: Depot) -> None:
        super().__init__(depot, sys.maxsize)
        self.asked: list[str] = []

    def _step(self) -> None:
        self.asked.append("step")

    def read(self, key: str, limit: int) -> Stored | None:
        self.asked.append(key)
        return super().read(key, limit)

    def size(self, key: str) -> int | None:
        self.asked.append(key)
        return super().size(key)


def _many(there: Outside, desk: Desk, count: int) -> None:
    """A destination with so many datasets of others, as their publishing has left it."""
    desk.publish(there)
    index = json.loads(there.files()["index.json"])
    entry = {**index["datasets"]["crops"], "aliases": []}
    index["datasets"] |= {f"other{number:06}": entry for number in range(count)}
    index["files"] |= {f"other{number:06}.toml": "ab" * 32 for number in range(count)}
    there.put("index.json", json.dumps(index).encode())


@pytest.mark.parametrize(
    "count", [2_000, pytest.param(100_000, marks=pytest.mark.soak)], ids=["small", "large"]
)
def test_what_a_publishing_costs_does_not_grow_with_the_registry(
    desk: Desk, there: Outside, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _many(there, desk, count)
    depots: list[Counting] = []

    def opened(url: str) -> Depot:
        depots.append(Counting(open_depot(url)))
        return depots[-1]

    monkeypatch.setattr(publishing, "open_depot", opened)
    desk.take("new", content(9, 9))
    desk.publish(there)
    assert len(depots[0].asked) < 16
    found = there.index()
    assert len(found) == count + 3
    assert found["other000001"] == {**found["crops"], "aliases": []}


@pytest.mark.parametrize(
    "count", [2_000, pytest.param(100_000, marks=pytest.mark.soak)], ids=["small", "large"]
)
def test_what_a_look_up_costs_does_not_grow_with_the_registry(
    desk: Desk, tmp_path: Path, home: Path, count: int
) -> None:
    small, large = (Outside(str(tmp_path / "www" / each), None) for each in ("small", "large"))
    desk.publish(small)
    _many(large, desk, count)
    with nginx(tmp_path / "www", tmp_path / "nginx") as server:
        asked = []
        for number, name in enumerate(("small", "large")):
            before = len(server.requests())
            reader(home, f"{server.url}/{name}", number).fetch("trees")
            asked.append(len(server.requests()) - before)
    assert asked[0] == asked[1] <= 4


class TestCommand:
    def test_documents_and_exit_codes(self, desk: Desk, tmp_path: Path) -> None:
        there = str(tmp_path / "public")

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "dscache", "registry", "publish", str(desk.folder)]
            return subprocess.run(
                [*command, "--to", there, *words], capture_output=True, text=True, check=False
            )

        planned = json.loads(run("--dry-run", "--json").stdout)
        assert (planned["dry_run"], planned["uploaded"], planned["skipped"]) == (True, 4, 0)
        assert not os.path.exists(there)
        told = run()
        assert told.returncode == 0
        assert [line.split()[:2] for line in told.stdout.splitlines()[5:8]] == [
            ["registry", "registry"],
            ["version", "crops@1"],
            ["version", "crops@2"],
        ]
        assert "4 files of data (5.64 kB) uploaded, 0 were there" in told.stderr
        done = json.loads(run("--json").stdout)
        assert done == {
            "dry_run": False,
            "url": there,
            "uploaded": 0,
            "skipped": 4,
            "bytes": 0,
            "published": [],
        }
        desk.take("trees", content(41, 4))
        refused = run("--json")
        assert refused.returncode == 5
        assert json.loads(refused.stdout)["error"]["type"] == "IntegrityError"
