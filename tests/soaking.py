"""One process of a soak: it fetches, holds, prunes and verifies, and looks at all it is given.

    python -m tests.soaking PLAN SEED ROUNDS

It writes to the file of complaints what must not be, and knows nothing of the store. `PLAN` is a
JSON file with what each dataset holds, by path and sha256. What was fetched is looked at again in
every round until the process ends, since it is held that long.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from dscache.cache import Cache
from dscache.errors import NotCached


class Plan(msgspec.Struct, frozen=True):
    """What all processes of a soak have in common.

    Attributes:
        datasets: the sha256 of each file by its path, by dataset.
        complaints: the file for what must not be.
        folder: where each process has a folder of its own.
        sizes: what the cache is pruned to, in bytes.
    """

    datasets: dict[str, dict[str, str]]
    complaints: str
    folder: str
    sizes: tuple[int, ...]


class Worker:
    """What one process does, and what it holds."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self._plan = plan
        self._random = random.Random(seed)
        self._cache = Cache()
        self._held: dict[Path, dict[str, str]] = {}
        self._own = Path(plan.folder, f"{seed}")

    def round(self) -> None:
        """Do something, and look at everything that is held."""
        steps: list[tuple[int, Callable[[], None]]] = [
            (30, self._fetch),
            (10, self._fetch_many),
            (10, self._fetch_some),
            (10, self._hold),
            (6, self._place),
            (10, self._path),
            (8, self._prune_to_size),
            (4, self._prune_garbage),
            (3, self._prune_named),
            (3, self._prune_archives),
            (1, self._prune_all),
            (4, self._verify),
            (1, self._repair),
            (2, self._pin),
            (2, self._usage),
        ]
        (step,) = self._random.choices([each for _, each in steps], [odds for odds, _ in steps])
        step()
        for path, wanted in self._held.items():
            self._check(path, wanted, step.__name__)

    def _fetch(self) -> None:
        name = self._any()
        self._given(self._cache.fetch(name), self._plan.datasets[name])

    def _fetch_many(self) -> None:
        names = self._random.sample(sorted(self._plan.datasets), 4)
        for name, path in self._cache.fetch_many(names).items():
            self._given(path, self._plan.datasets[name])

    def _fetch_some(self) -> None:
        name = self._any()
        contents = self._plan.datasets[name]
        chosen = self._random.choice(sorted(contents))
        path = self._cache.fetch(name, files=chosen)
        self._given(path, {chosen: contents[chosen]}, part=True)

    def _hold(self) -> None:
        name = self._any()
        with self._cache.hold(name) as path:
            for _ in range(3):
                self._check(path, self._plan.datasets[name], "hold")

    def _place(self) -> None:
        """Into a folder of the user's: this is no matter of leases, and right as long as it is."""
        name = self._any()
        mode = self._random.choice(["auto", "hardlink", "copy", "symlink"])
        folder = self._own / f"{self._random.randrange(10**9)}"
        path = self._cache.fetch(name, into=folder, link=mode)
        self._check(path, self._plan.datasets[name], f"into, {mode}")
        if self._random.random() < 0.9:
            shutil.rmtree(folder)

    def _path(self) -> None:
        name = self._any()
        try:
            self._given(self._cache.path(name), self._plan.datasets[name])
        except NotCached:
            return

    def _prune_to_size(self) -> None:
        cache = self._cache
        cache.prune(cache.plan_prune(max_size=self._random.choice(self._plan.sizes)))

    def _prune_garbage(self) -> None:
        self._cache.prune(self._cache.plan_prune())

    def _prune_named(self) -> None:
        try:
            self._cache.prune(self._cache.plan_prune([self._any()]))
        except NotCached:
            return

    def _prune_archives(self) -> None:
        self._cache.prune(self._cache.plan_prune(archives=True))

    def _prune_all(self) -> None:
        self._cache.prune(self._cache.plan_prune(all=True))

    def _verify(self) -> None:
        found = self._cache.verify(full=self._random.random() < 0.3)
        if found.corrupt:
            raise AssertionError(f"found damage that nobody did: {found.corrupt}")

    def _repair(self) -> None:
        found = self._cache.verify(repair=True)
        if found.corrupt or found.repaired:
            raise AssertionError(f"found damage that nobody did: {found}")

    def _pin(self) -> None:
        name = self._any()
        try:
            self._cache.pin(name)
            self._check(self._cache.path(name), self._plan.datasets[name], "pin")
            self._cache.unpin(name)
        except NotCached:  # not here, or another process has unpinned it and pruned
            return

    def _usage(self) -> None:
        self._cache.usage()

    def _any(self) -> str:
        return self._random.choice(sorted(self._plan.datasets))

    def _given(self, path: Path, wanted: dict[str, str], *, part: bool = False) -> None:
        if not part:
            self._held[path] = wanted
        self._check(path, wanted, "given")

    def _check(self, path: Path, wanted: dict[str, str], when: str) -> None:
        """Compare what stands there with what should."""
        for name, sha256 in wanted.items():
            file = path / name if path.is_dir() else path
            try:
                found = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                raise AssertionError(f"{when}: {file}: {error}") from error
            if found != sha256:
                raise AssertionError(f"{when}: {file} has other bytes")


def main() -> None:
    """Go so many rounds."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    worker = Worker(plan, int(sys.argv[2]))
    try:
        for _ in range(int(sys.argv[3])):
            worker.round()
    except BaseException:
        complaint = f"--- process {os.getpid()}\n{traceback.format_exc()}\n"
        with open(plan.complaints, "a", encoding="utf-8") as file:
            file.write(complaint)
        raise


if __name__ == "__main__":
    main()
