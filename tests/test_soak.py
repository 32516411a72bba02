"""A soak: many processes fetch, hold, prune and verify on one cache, and are killed at random.

Each looks at every byte that it is given for as long as it holds it. Afterwards nothing is wrong
with the cache, and a prune removes all that was left. DSCACHE_SOAK is the length in seconds.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dscache.cache import Cache
from dscache.store import SMALL
from tests.archives import File, packed
from tests.children import forked
from tests.making import Shelf, artifact, content, md5, sha256
from tests.servers import Server, nginx
from tests.soaking import Plan
from tests.stores import faults_of, files_below, let_an_hour_pass

_ROOT = Path(__file__).parents[1]
_LONG = float(os.environ.get("DSCACHE_SOAK", "600"))
_SETTINGS = """
prune_grace = "0"
part_max_age = "2s"
quarantine_max_age = "0"
root_grace = "0"
lock_timeout = "2m"
"""


class Goods:
    """The datasets, as files of a server and entries of a registry."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.shelf = Shelf(folder / "shelf")
        self.contents: dict[str, dict[str, str]] = {}
        self._files = folder / "files"
        self._url = server.url
        for number in range(30):
            self._add_small(number)
        for number in range(6):
            self._add_archive(number)
        for number in range(4):
            self._add_large(number)
        self._add_list()

    def _served(self, name: str, data: bytes) -> str:
        (self._files / name).write_bytes(data)
        return f"{self._url}/{name}"

    def _add_small(self, number: int) -> None:
        """Up to five files, some of them shared with others, some known by md5 alone."""
        files = {
            f"f{part}.bin": content(200 * part + 7 * (number % 10), part * 100 + number % 10)
            for part in range(1 + number % 5)
        }
        rows: list[dict[str, Any]] = []
        for name, data in files.items():
            url = self._served(f"small{number}-{name}", data)
            weak = {"hash": md5(data), "size": None} if number % 7 == 0 else {}
            rows.append(artifact(name, data, url, **weak))
        self._add(f"small{number}", rows, files)

    def _add_archive(self, number: int) -> None:
        members = {f"m{part}.bin": content(500 + number, part) for part in range(10)}
        if number % 2:
            members["big.bin"] = content(SMALL + 1000 * number, number)
        kind = ("tar", "tar.gz", "zip")[number % 3]
        data = packed(kind, *(File(name, each) for name, each in members.items()))
        url = self._served(f"pack{number}.{kind}", data)
        row = artifact(f"pack{number}.{kind}", data, url, unpack=kind.partition(".")[0])
        self._add(f"pack{number}", [row], members)

    def _add_large(self, number: int) -> None:
        files = {
            "large.bin": content(SMALL + 200_000 * (number // 2), 50 + number // 2),
            "little.bin": content(900, number),
        }
        rows = [
            artifact(name, data, self._served(f"large{number}-{name}", data))
            for name, data in files.items()
        ]
        self._add(f"large{number}", rows, files)

    def _add_list(self) -> None:
        files = {f"row{number}.bin": content(100 + number, number) for number in range(40)}
        lines = []
        for name, data in files.items():
            self._served(name, data)
            lines.append(
                msgspec.json.encode({"path": name, "size": len(data), "hash": sha256(data)})
            )
        listing = b"\n".join(lines)
        keys = {
            "hash": sha256(listing),
            "size": len(listing),
            "urls": [self._served("list.jsonl", listing)],
            "base_urls": [f"{self._url}/"],
        }
        self.shelf.write("listed.toml", {"version": "1", "manifest": keys})
        self.contents["listed"] = {name: sha256(data)[7:] for name, data in files.items()}

    def _add(self, name: str, rows: list[dict[str, Any]], files: dict[str, bytes]) -> None:
        self.shelf.add(name, rows)
        self.contents[name] = {path: sha256(data)[7:] for path, data in files.items()}


@pytest.fixture
def goods(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Goods]:
    (home / "files").mkdir()
    with nginx(home / "files", home / "nginx") as server:
        made = Goods(home, server)
        monkeypatch.setenv("DSCACHE_REGISTRIES", str(made.shelf.folder))
        (home / "config.toml").write_text(_SETTINGS)
        yield made


class Crowd:
    """Processes that work on one cache; one that has ended makes place for another."""

    def __init__(self, plan: Path, output: Path) -> None:
        self._plan = plan
        self._output = output
        self._random = random.Random(0)
        self._seed = 0
        self._living: list[subprocess.Popen[bytes]] = []
        self.killed = self.ended = self.failed = 0

    def fill(self, count: int) -> None:
        """Have so many processes live."""
        for each in [*self._living]:
            if each.poll() is not None:
                self._living.remove(each)
                self.ended += 1
                self.failed += each.returncode != 0
        while len(self._living) < count:
            self._start()

    def _start(self) -> None:
        self._seed += 1
        rounds = self._random.choice([3, 10, 40])
        words = ("-m", "tests.soaking", str(self._plan), str(self._seed), str(rounds))
        with self._output.open("ab") as output:
            environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
            command = [sys.executable, *words]
            started = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self._living.append(started)

    def kill_one(self) -> None:
        """End one of them without a word."""
        each = self._random.choice(self._living)
        if each.poll() is None:
            self._living.remove(each)
            each.kill()
            each.wait()
            self.killed += 1

    def end(self) -> None:
        """End all of them the same way."""
        for each in self._living:
            each.kill()
            each.wait()
        self._living.clear()


def soak(home: Path, goods: Goods, seconds: float, processes: int) -> Crowd:
    """Let them work for so long, and look at what they have left."""
    sizes = (0, 3_000_000, 6_000_000, 20_000_000)
    complaints = home / "complaints"
    plan = Plan(goods.contents, str(complaints), str(home / "mine"), sizes)
    (home / "plan.json").write_bytes(msgspec.json.encode(plan))
    crowd = Crowd(home / "plan.json", home / "output")
    chance = random.Random(1)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            crowd.fill(processes)
            time.sleep(chance.uniform(0, 2))
            crowd.kill_one()
    finally:
        crowd.end()
    assert not complaints.exists(), complaints.read_text()
    assert not crowd.failed, (home / "output").read_text()
    return crowd


def look(home: Path, goods: Goods) -> None:
    """What must be true of the cache that they have left."""
    root, cache = home / "cache", Cache()
    assert faults_of(root) == []
    found = cache.verify(full=True)
    assert found.corrupt == ()
    let_an_hour_pass(root)
    for _ in range(2):  # a folder of the user that is gone is noted first
        cache.prune(cache.plan_prune())
        time.sleep(0.1)
    assert cache.plan_prune().removed == ()
    for folder in ("leases", "removals", "parts", "quarantine"):
        assert files_below(root / folder) == []
    forked(partial(fetch_everything, goods.contents))
    assert faults_of(root) == []
    leave_nothing(home)


def fetch_everything(contents: dict[str, dict[str, str]]) -> None:
    """It can all be had, and is right."""
    for name, path in Cache().fetch_many(contents).items():
        for file, wanted in contents[name].items():
            assert sha256((path / file if path.is_dir() else path).read_bytes())[7:] == wanted


def leave_nothing(home: Path) -> None:
    """When nobody needs anything any more, a prune takes all but what outlives datasets."""
    root, cache = home / "cache", Cache()
    shutil.rmtree(home / "mine")
    for each in cache.cached():
        cache.unpin(each.name)
    for _ in range(3):  # as above, and what was known of blobs goes after them
        cache.prune(cache.plan_prune(all=True))
        time.sleep(0.1)
    left = {path.relative_to(root).parts[0] for path in files_below(root)}
    assert left <= {"VERSION", "CACHEDIR.TAG", "locks", "counters"}


def test_a_short_soak(home: Path, goods: Goods) -> None:
    soak(home, goods, 12, 6)
    look(home, goods)


@pytest.mark.soak
@pytest.mark.timeout(_LONG + 300)
def test_a_soak(home: Path, goods: Goods) -> None:
    crowd = soak(home, goods, _LONG, 16)
    assert crowd.killed > _LONG / 8
    look(home, goods)
