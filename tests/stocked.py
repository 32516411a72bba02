"""Caches for tests of pruning: filled with datasets that nobody holds, and looked at from outside.

    stock = Stock(folder)
    stock.put("old", {"a.bin": DATA}, age=40 * DAY)
    assert gone(stock.cache.plan_prune(older_than="30d")) == ["old"]

What a test's own process fetches it holds to its end; `put` fetches and lets go.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dscache.results import Plan
from dscache.store import Store
from tests.children import running
from tests.downloads import Desk
from tests.making import artifact
from tests.stores import files_below

DAY = 86400.0

# Fetches, says the path, and lives until its input ends.
USE = """
import sys
from dscache.cache import Cache
for name in sys.argv[1:]:
    print(Cache().fetch(name), flush=True)
print("ready", flush=True)
sys.stdin.read()
"""


class Stock(Desk):
    """A desk whose datasets come from files beside their entries."""

    def put(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        age: float = 0.0,
        version: str = "1",
        **keys: Any,
    ) -> Path:
        """A dataset in the cache that was last used so many seconds ago; where it stands.

        `keys` are added to each of its artifacts.
        """
        self.describe(name, files, version=version, **keys)
        with self.cache.hold(f"shelf/{name}@{version}") as path:
            pass
        self.use(name, age, version)
        return path

    def describe(
        self, name: str, files: Mapping[str, bytes], *, version: str = "1", **keys: Any
    ) -> None:
        """A dataset of the registry, which is not fetched."""
        artifacts = []
        for path, data in files.items():
            there = self.shelf.folder / f"{name}-{version}" / path
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(data)
            artifacts.append(artifact(path, data, f"{name}-{version}/{path}", **keys))
        self.shelf.add(name, artifacts, file=f"{name}@{version}.toml", version=version)
        self.shelf.add(name, artifacts, version=version)

    def use(self, name: str, age: float, version: str = "1") -> None:
        """Have a dataset last used so many seconds ago."""
        then = time.time() - age
        os.utime(self.record(name, version), (then, then))

    def record(self, name: str, version: str = "1") -> Path:
        """The record of a dataset."""
        (path,) = (self.root / "records/shelf").glob(f"{name}@{version}+*.json")
        return path

    def mark(self, name: str, version: str = "1") -> str:
        """A dataset as the store knows it."""
        return f"shelf/{self.record(name, version).name.removesuffix('.json')}"

    def has(self, name: str, version: str = "1") -> bool:
        """True if a dataset is here, with all its bytes."""
        found = list((self.root / "records/shelf").glob(f"{name}@{version}+*.json"))
        if not found:
            return False
        record = json.loads(found[0].read_bytes())
        view = self.root / f"datasets/shelf/{name}/{version}+{record['content'][:8]}"
        return all((view / path).stat().st_size == size for path, _, size, _ in record["files"])

    @property
    def store(self) -> Store:
        """The store below the cache."""
        return Store(str(self.root))

    def prune(self, *names: str, **policy: Any) -> Plan:
        """Plan, and do it."""
        return self.cache.prune(self.cache.plan_prune(names, **policy))

    @property
    def blobs(self) -> int:
        """How many there are."""
        return len(files_below(self.root / "blobs"))

    @property
    def environment(self) -> dict[str, str]:
        """What leads another process to the same cache and registry."""
        return {"DSCACHE_DIR": str(self.root), "DSCACHE_REGISTRIES": str(self.shelf.folder)}

    def user(self, *names: str) -> Any:
        """Another process that fetches datasets and lives on; `used` waits until it has them."""
        return running(USE, *names, environment=self.environment)


def used(process: Any) -> list[Path]:
    """The paths that a `Stock.user` was given; it goes on living."""
    paths = []
    while (line := process.stdout.readline().strip()) != "ready":
        assert line, process.communicate()[1]
        paths.append(Path(line))
    return paths


def gone(plan: Plan, *kinds: str) -> list[str]:
    """The names of what goes, as they stand in the registry; by default those of datasets."""
    wanted = kinds or ("dataset",)
    return [short(row.name) for row in plan.removed if row.kind in wanted]


def short(name: str) -> str:
    """A name without the registry and the version 1, which tests do not speak of."""
    return name.removeprefix("shelf/").removesuffix("@1")


def kept(plan: Plan) -> dict[str, str]:
    """Why things stay, by name."""
    return {short(row.name): row.reason for row in plan.kept}


def allocated(paths: Iterable[Path]) -> int:
    """Bytes of the disk that files take, each inode once."""
    found = {state.st_ino: state for state in (path.lstat() for path in paths)}
    return sum(state.st_blocks * 512 for state in found.values())


def aged(path: Path, age: float) -> Path:
    """Make a file, or a folder with all that it holds, so old."""
    for each in [*path.rglob("*"), path]:
        then = each.lstat().st_mtime - age
        os.utime(each, (then, then), follow_symlinks=False)
    return path
