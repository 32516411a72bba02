"""Removing what was planned: said first, looked at once more, then taken away.

Each batch is said in `store.removals`, so that who wants something of it waits for a moment; then
leases, pins, roots and records are read anew, and what is needed by now is kept. A process that is
killed in the middle leaves things that nothing names, which the next prune removes: of a dataset
the record goes first, of a tree its summary.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from dscache import disk, filesystem
from dscache.digest import is_sha256
from dscache.errors import StorageError
from dscache.pruning.inventory import sha256_in
from dscache.pruning.policy import Limits
from dscache.pruning.protection import Protection
from dscache.results import Kept, Plan, Removal
from dscache.store import Record, Store

#: Datasets, and blobs and trees, that are said together.
_DATASETS, _THINGS = 100, 5000
#: How often others hear that it still goes on, in seconds.
_SAY_EVERY = 10.0
#: Within such a time, in seconds, a file may be written twice and keep its time.
_TICK = 1.0
_NEEDED = "it is needed by now"

Target = TypeVar("Target")


def execute(store: Store, plan: Plan, limits: Limits) -> Plan:
    """Remove what was planned, but for what is needed by now.

    Returns:
        What was done: `freed_bytes` is what the filesystem got back.

    Raises:
        StorageError: the cache cannot be written.
    """
    return _Removing(store, plan, limits).run()


class _Removing:
    def __init__(self, store: Store, plan: Plan, limits: Limits) -> None:
        self._store = store
        self._plan = plan
        self._limits = limits
        self._removed: set[Removal] = set()
        self._kept = list(plan.kept)
        self._freed = 0
        # What nothing names once the datasets are gone: blobs by their sha256, trees by their path;
        # with the row of the plan where they have one of their own.
        self._orphans: dict[str, Removal | None] = {}
        self._records: dict[str, float] = {}
        self._go_on: Callable[[], None] = lambda: None
        self._said = 0.0

    def run(self) -> Plan:
        with disk.storage_errors("the cache cannot be pruned"):
            rows = [row for row in self._plan.removed if row.kind == "dataset"]
            for batch in _batches(rows, _DATASETS):
                self._remove_datasets(batch)
            for row in self._plan.removed:
                if row.kind in ("archive", "blob", "tree"):
                    self._orphans[row.target] = row
                elif row.kind in ("part", "quarantine"):
                    self._try(row, partial(self._remove, row.target))
            self._remove_ended([row for row in self._plan.removed if row.kind in ("lease", "root")])
            self._remove_orphans()
            notes = [row for row in self._plan.removed if row.kind == "record"]
            for rows in _batches(notes, _THINGS):
                self._remove_notes(rows)
            self._note_roots()
        removed = tuple(row for row in self._plan.removed if row in self._removed)
        return Plan(removed, tuple(self._kept), self._freed)

    def _note_roots(self) -> None:
        """Since when projects and folders of users are gone."""
        for noted, known in self._protection().missing:
            try:
                self._store.roots.put(noted, known)
            except OSError as error:
                if error.errno not in disk.FULL:
                    raise
                return  # another prune notes it, once there is room

    def _protection(self) -> Protection:
        return Protection(self._store, self._limits, self._store.clock())

    def _remove_datasets(self, rows: Sequence[Removal]) -> None:
        marks = {row.target: self._mark_of(row) for row in rows}
        with self._store.removals.said(marks.values()) as self._go_on:
            protection = self._protection()
            for row in rows:
                mark = marks[row.target]
                if why := protection(mark):
                    self._keep(row, why)
                elif row.target == mark or self._store.records.load(mark) is None:
                    self._try(row, partial(self._remove_dataset, mark))
                else:
                    self._keep(row, _NEEDED)

    def _remove_dataset(self, mark: str) -> None:
        record = self._store.records.load(mark)
        if record:
            self._orphans.update(dict.fromkeys(self._needs(record)))
            self._store.records.drop(mark)
        self._remove(self._store.layout.view(mark))

    def _mark_of(self, row: Removal) -> str:
        """A view that no record names is planned by its path."""
        if not row.target.startswith(self._store.layout.views):
            return row.target
        registry, name, version = row.target[len(self._store.layout.views) + 1 :].split("/")
        return f"{registry}/{name}@{version}"

    def _needs(self, record: Record, *, archives: bool = True) -> Iterator[str]:
        """All that a record names."""
        yield from (file.sha256 for file in record.files)
        yield from record.keeps
        for each in record.trees:
            yield self._store.layout.tree(each.sha256, each.recipe)
            if archives:
                yield each.sha256

    def _remove_ended(self, rows: Sequence[Removal]) -> None:
        """Leases and roots, as far as they still count for nothing."""
        if not rows:
            return
        leases = self._store.leases.ended(self._store.clock(), self._limits.lease_ttl)
        ended = {folder for folder, _ in leases}
        ended.update(self._store.removals.ended())
        ended.update(map(self._store.roots.path, self._protection().expired))
        for row in rows:
            if row.target in ended or not os.path.lexists(row.target):
                self._try(row, partial(self._remove, row.target))
            else:
                self._keep(row, _NEEDED)

    def _remove_notes(self, rows: Sequence[Removal]) -> None:
        """Proofs and aliases, as far as nobody is bringing what they speak of."""
        blobs = {row.target: self._store.blobs.spoken_of(row.target) for row in rows}
        with self._store.removals.said(filter(None, blobs.values())) as self._go_on:
            protection = self._protection()
            for row in rows:
                sha256 = blobs[row.target]
                is_here = sha256 and os.path.exists(self._store.layout.blob(sha256))
                if is_here or protection.bringer(sha256):
                    self._keep(row, _NEEDED)
                else:
                    self._try(row, partial(self._remove, row.target))

    def _remove_orphans(self) -> None:
        if not self._orphans:
            return
        self._leave_out_needed()
        for batch in _batches(list(self._orphans), _THINGS):
            with self._store.removals.said(map(sha256_in, batch)) as self._go_on:
                protection = self._protection()
                self._leave_out_needed()
                for target in batch:
                    if target in self._orphans:
                        self._remove_orphan(target, protection)

    def _remove_orphan(self, target: str, protection: Protection) -> None:
        row = self._orphans[target]
        bringer = protection.bringer(sha256_in(target))
        if bringer:
            self._keep(row, f"{bringer} is bringing it")
        elif protection.broken:
            self._keep(row, protection.broken)
        else:
            kind = "blob" if is_sha256(target) else "tree"
            unplanned = Removal(kind, f"sha256:{sha256_in(target)}", 0, "", target)
            self._try(row or unplanned, partial(self._take_away, target), is_planned=bool(row))

    def _take_away(self, target: str) -> None:
        if not is_sha256(target):
            self._unlink(self._store.trees.summary(target))
            self._remove(target)
            return
        self._remove(self._store.layout.blob(target))
        filesystem.unlink(self._store.layout.proof(target))

    def _leave_out_needed(self) -> None:
        """Keep what records name that are new or have changed since they were last read."""
        settled = self._store.clock() - _TICK
        for path, used, record in self._store.records.survey(self._records):
            if used < settled:
                self._records[path] = used
            if isinstance(record, str):
                self._leave_out(list(self._orphans), f"a record cannot be read: {path}")
                return
            archives = {each.sha256 for each in record.trees}
            self._leave_out(self._needs(record, archives=False), _NEEDED)
            self._leave_out((each for each in archives if not self._is_archive(each)), _NEEDED)

    def _is_archive(self, sha256: str) -> bool:
        row = self._orphans.get(sha256)
        return row is not None and row.kind == "archive"

    def _leave_out(self, targets: Iterable[str], why: str) -> None:
        for target in targets:
            if target in self._orphans:
                self._keep(self._orphans.pop(target), why)

    def _try(self, row: Removal, step: Callable[[], None], *, is_planned: bool = True) -> None:
        """Take one step; what the disk does not let go is kept, and said."""
        try:
            step()
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            self._keep(row, f"it cannot be removed: {os.strerror(error.errno or 0)}")
            return
        if is_planned:
            self._removed.add(row)

    def _keep(self, row: Removal | None, why: str) -> None:
        if row:
            self._kept.append(Kept(row.name, row.bytes, why))

    def _remove(self, path: str) -> None:
        """Remove a file or a folder, and count what the disk gets back."""
        if os.path.isdir(path) and not os.path.islink(path):
            # From the bottom and in order: who owns a lease or a draft stands at its top, and last.
            for parent, _, names in os.walk(path, topdown=False):
                for name in sorted(names):
                    self._unlink(f"{parent}/{name}")
            filesystem.remove_tree(path)
        else:
            self._unlink(path)

    def _unlink(self, path: str) -> None:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        filesystem.unlink(path)
        if (now := time.monotonic()) - self._said > _SAY_EVERY:
            self._said = now
            self._go_on()
        self._freed += disk.taken(found) if found.st_nlink == 1 else 0


def _batches(targets: Iterable[Target], size: int) -> Iterator[list[Target]]:
    rest = iter(targets)
    while batch := list(islice(rest, size)):
        yield batch
