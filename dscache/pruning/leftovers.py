"""Leftovers: what processes that have ended left behind, and what has become too old.

Each is a removal of its own: it names nothing that a dataset needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby

from dscache import disk
from dscache.digest import is_sha256
from dscache.pruning.freeing import blob_bytes, tree_bytes
from dscache.pruning.inventory import Inventory
from dscache.pruning.policy import Limits
from dscache.pruning.protection import Protection
from dscache.quantities import show_duration
from dscache.results import Removal
from dscache.store import Layout, Store
from dscache.store.owner import Owner, is_gone

_ENDED = "left by a process that has ended"
#: What is written and then moved to its name may take so long, in seconds, whatever the grace is.
_WRITING = 60.0


class Leftovers:
    """The leftovers in one cache."""

    def __init__(
        self,
        store: Store,
        inventory: Inventory,
        protection: Protection,
        limits: Limits,
        now: float,
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._attempts = store.parts()
        self._protection = protection
        self._limits = limits
        self._writing = max(limits.prune_grace, _WRITING)
        self._now = now

    def all(self) -> Iterator[Removal]:
        """Every leftover."""
        with disk.storage_errors("the cache cannot be read"):
            yield from self._parts()
            yield from self._quarantined()
            yield from self._leases()
            yield from self._temporary()
            yield from self._views()
            yield from self._notes()
            yield from self._roots()

    def _parts(self) -> Iterator[Removal]:
        names = _names(self._store.layout.parts)
        for attempt, group in groupby(names, key=_attempt):
            paths = [f"{self._store.layout.parts}/{name}" for name in group]
            if reason := self._part_reason(attempt, paths):
                yield from (_removal("part", path, reason) for path in paths)

    def _part_reason(self, attempt: str, paths: list[str]) -> str:
        """Why what one attempt left may go; "" where it may not."""
        age = min(map(self._age, paths))
        key, _, token = attempt.partition(".")
        drafts = [path for path in paths if path.endswith(".tree")]
        if drafts:
            owner = self._store.trees.draft_owner(drafts[0])
            if owner and is_gone(owner):
                return _ENDED
            return "" if _lives(owner) else self._too_old(age)
        if key == "small":  # written and moved away at once
            return _ENDED if age > self._writing else ""
        journal = self._attempts.journal(key, token)
        if journal and _lives(journal.owner):
            return ""
        algorithm, _, value = key.partition("-")
        is_free = journal and (journal.owner is None or is_gone(journal.owner))
        if is_free and algorithm == "sha256" and is_sha256(value):
            if os.path.exists(self._store.layout.blob(value)):
                return "the whole file is here"
            if not any(path.endswith(".part") for path in paths):
                return _ENDED
        return self._too_old(age)

    def _quarantined(self) -> Iterator[Removal]:
        folder = self._store.layout.quarantine
        for name in _names(folder):
            age = self._age(f"{folder}/{name}")
            if age > self._limits.quarantine_max_age:
                yield _removal("quarantine", f"{folder}/{name}", f"{show_duration(age)} old")

    def _leases(self) -> Iterator[Removal]:
        for folder, holder in self._store.leases.ended(self._now, self._limits.lease_ttl):
            yield _removal("lease", folder, f"{holder} has ended")
        for path in self._store.removals.ended():
            yield _removal("lease", path, "a prune that has ended")

    def _temporary(self) -> Iterator[Removal]:
        """Files that were on their way to their names when their process was killed."""
        layout = self._store.layout
        for folder in (layout.root, *_folders(layout)):
            for name in _names(folder):
                path = f"{folder}/{name}"
                if name.endswith(".tmp") and self._age(path) > self._writing:
                    yield _removal("part", path, _ENDED)

    def _views(self) -> Iterator[Removal]:
        """Views that no record speaks of, and those that were never finished."""
        layout = self._store.layout
        for registry, name in _pairs(layout.views):
            folder = f"{layout.views}/{registry}/{name}"
            if self._protection.is_in_work(registry, name):
                continue
            for each in _names(folder):
                path = f"{folder}/{each}"
                mark = f"{registry}/{name}@{each}"
                if each.endswith(".tmp"):
                    if self._age(path) > self._writing:
                        yield _removal("part", path, _ENDED)
                elif (
                    self._is_old(path)
                    and not os.path.exists(layout.record(mark))
                    and not self._protection(mark)
                ):
                    yield _removal("dataset", path, "no record names it", name=mark)

    def _notes(self) -> Iterator[Removal]:
        """Proofs and aliases of blobs that are gone."""
        layout = self._store.layout
        for name in disk.names_below(layout.proofs):
            sha256 = name.removesuffix(".json")
            path = layout.proof(sha256)
            is_missing = not os.path.exists(layout.blob(sha256))
            if is_sha256(sha256) and is_missing and self._is_old(path):
                yield _removal("record", path, "what it speaks of is gone")
        for path, sha256 in self._store.blobs.aliases():
            # Of an archive that was dropped, the alias still tells which tree is its own.
            is_named = sha256 and self._inventory.blob(sha256) is not None
            is_here = sha256 and os.path.exists(layout.blob(sha256))
            if not is_named and not is_here and self._is_old(path):
                yield _removal("record", path, "what it speaks of is gone")

    def _roots(self) -> Iterator[Removal]:
        for root in self._protection.expired:
            yield _removal("root", self._store.roots.path(root), f"{root} is gone", name=root.path)

    def _age(self, path: str) -> float:
        """Seconds since a file was written; less than none where it is gone or of the future."""
        try:
            return self._now - os.lstat(path).st_mtime
        except FileNotFoundError:
            return -1.0

    def _is_old(self, path: str) -> bool:
        return self._age(path) > self._limits.prune_grace

    def _too_old(self, age: float) -> str:
        """Why a part goes that somebody might still go on with."""
        is_old = age > self._limits.part_max_age
        return f"nobody went on with it for {show_duration(age)}" if is_old else ""


def _attempt(name: str) -> str:
    """What the files of one attempt have in common: key and token."""
    return ".".join(name.split(".")[:2])


def _lives(owner: Owner | None) -> bool:
    return owner is not None and is_gone(owner) is False


def _removal(kind: str, path: str, reason: str, *, name: str = "") -> Removal:
    is_folder = os.path.isdir(path) and not os.path.islink(path)
    size = tree_bytes(path) if is_folder else blob_bytes(path)
    return Removal(kind, name or os.path.basename(path), size, reason, path)


def _names(folder: str) -> list[str]:
    """What is in a folder; of one that we may not look into nothing can be told, or removed."""
    try:
        return disk.names(folder)
    except PermissionError:
        return []


def _pairs(folder: str) -> Iterator[tuple[str, str]]:
    for first in _names(folder):
        yield from ((first, second) for second in _names(f"{folder}/{first}"))


def _folders(layout: Layout) -> Iterator[str]:
    """The folders in which small files are published, but for those of parts and views."""
    yield from (layout.locks, f"{layout.locks}/hosts", layout.removals)
    for folder in (layout.records, layout.proofs, layout.leases, layout.roots, layout.registries):
        yield from (f"{folder}/{name}" for name in _names(folder))
    for algorithm, shard in _pairs(layout.aliases):
        yield f"{layout.aliases}/{algorithm}/{shard}"
    for shard, name in _pairs(layout.trees):
        yield f"{layout.trees}/{shard}/{name}"
