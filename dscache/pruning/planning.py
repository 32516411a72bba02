"""Planning: what a prune removes and what it keeps, with a reason for each; changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

from dscache import disk
from dscache.errors import NotCached
from dscache.model import Reference
from dscache.pruning.archives import archives
from dscache.pruning.freeing import Freed, blob_bytes, freed, size_of, tree_bytes
from dscache.pruning.inventory import Holding, Inventory, sha256_in
from dscache.pruning.leftovers import Leftovers
from dscache.pruning.policy import Choice, Chosen, Limits, Policy, Room
from dscache.pruning.protection import Protection
from dscache.quantities import show_duration, show_size
from dscache.results import Kept, Plan, Removal
from dscache.store import Store


def plan(store: Store, names: Iterable[Reference], policy: Policy, limits: Limits) -> Plan:
    """What is to go: of the datasets named, or of all; without names, garbage as well.

    Raises:
        NotCached: nothing of a name is in the cache.
        StorageError: the cache cannot be read.
    """
    with disk.storage_errors("the cache cannot be read"):
        return _Planning(store, limits).run(tuple(names), policy)


class _Planning:
    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._now = store.clock()
        self._inventory = Inventory(store)
        self._protection = Protection(store, limits, self._now)
        self._removed: list[Removal] = []
        self._kept: list[Kept] = []
        self._garbage = Freed()
        self._freed = 0

    def run(self, names: Sequence[Reference], policy: Policy) -> Plan:
        named = self._named(names)
        if not names:
            self._take_garbage()
        self._take_datasets(named, policy, is_asked=bool(names) and policy.is_empty)
        if policy.archives:
            self._take_archives(named)
        return Plan(tuple(self._removed), tuple(self._kept), self._freed)

    def _named(self, names: Sequence[Reference]) -> list[Holding]:
        """The datasets that may go, the least recently used first."""
        datasets = sorted(self._inventory.datasets, key=lambda each: (each.last_used, each.mark))
        for name in names:
            if not any(name.means(each.reference) for each in datasets):
                raise NotCached(f"{name} is not in the cache", name=str(name))
        return [
            each
            for each in datasets
            if not names or any(name.means(each.reference) for name in names)
        ]

    def _take_garbage(self) -> None:
        for path, why in self._inventory.unreadable:
            name = os.path.basename(path).removesuffix(".json")
            reason = f"the record cannot be read ({why}); nothing goes that it may need"
            self._kept.append(Kept(name, blob_bytes(path), reason))
        for path in self._inventory.strays:
            with suppress(FileNotFoundError):  # another prune was faster
                self._take_stray(path)
        leftovers = Leftovers(
            self._store, self._inventory, self._protection, self._limits, self._now
        )
        for row in leftovers.all():
            if row.kind == "dataset" and self._reason_for_all():
                self._kept.append(Kept(row.name, row.bytes, self._reason_for_all()))
            else:
                self._removed.append(row)
                self._garbage.add(row.target)
        self._freed += self._garbage.bytes

    def _take_stray(self, path: str) -> None:
        """A blob or tree that no record names."""
        try:
            age = self._now - os.lstat(path).st_mtime
        except FileNotFoundError:
            return  # another prune was faster
        sha256 = sha256_in(path)
        size = size_of(path)
        name = f"sha256:{sha256}"
        if reason := self._reason_to_keep(sha256, age):
            self._kept.append(Kept(name, size, reason))
            return
        kind, target = ("tree", path) if os.path.isdir(path) else ("blob", sha256)
        self._removed.append(Removal(kind, name, size, "no record names it", target))
        self._garbage.add(path)

    def _reason_to_keep(self, sha256: str, age: float) -> str:
        bringer = self._protection.bringer(sha256)
        if bringer:
            return f"{bringer} is bringing it"
        if age <= self._limits.prune_grace:
            grace = show_duration(self._limits.prune_grace)
            return f"no record names it yet, and it is younger than {grace}"
        return self._reason_for_all()

    def _reason_for_all(self) -> str:
        """Why nothing may go that some dataset could need; "" where that is known."""
        if self._inventory.unreadable:
            return f"a record cannot be read, which may need it: {self._inventory.unreadable[0][0]}"
        return self._protection.broken

    def _take_datasets(self, named: list[Holding], policy: Policy, *, is_asked: bool) -> None:
        inventory = self._inventory
        choice = Choice(inventory, self._keeper_of, partial(freed, inventory))
        if is_asked:
            choice.take_named(named)
        else:
            choice.run(policy, named, self._room(policy), self._now)
        self._kept += choice.kept
        for each in choice.chosen:
            row = each.holding
            reason = each.reason + self._linked(each)
            self._removed.append(
                Removal("dataset", str(row.reference), each.bytes, reason, row.mark, row.last_used)
            )
            self._freed += each.freed

    def _keeper_of(self, mark: str) -> str:
        return self._reason_for_all() or self._protection(mark)

    def _room(self, policy: Policy) -> Room:
        """What is left without the garbage; not counted where nobody asks."""
        if (policy.max_size is None and policy.free is None) or not self._inventory.datasets:
            return Room(0, 0)
        layout = self._store.layout
        size = self._inventory.size + sum(each.bytes for each in self._kept)
        size += tree_bytes(layout.parts) + tree_bytes(layout.quarantine)
        size -= sum(row.bytes for row in self._removed if row.kind in ("part", "quarantine"))
        return Room(size, disk.free_space(layout.root) + self._freed)

    def _linked(self, each: Chosen) -> str:
        """What to say where other names of its files keep bytes from being freed."""
        if not each.bytes or each.freed >= each.bytes:
            return ""
        places = self._protection.linked_from(each.holding.mark)
        if each.freed and not places:
            return ""  # a compressing filesystem, or holes
        where = ", ".join(places) or "elsewhere"
        return f"; frees {show_size(each.freed)} now: linked from {where}"

    def _take_archives(self, named: list[Holding]) -> None:
        going = {row.target for row in self._removed if row.kind == "dataset"}
        staying = [each for each in named if each.mark not in going]
        for row in archives(self._store, self._inventory, self._protection, staying):
            if isinstance(row, Kept):
                self._kept.append(row)
            elif reason := self._reason_for_all():
                self._kept.append(Kept(row.name, row.bytes, reason))
            else:
                self._removed.append(row)
                self._freed += blob_bytes(self._store.layout.blob(row.target))
