"""Usage: what the cache takes on the disk, for which datasets, and who needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from dscache.call import Call
from dscache.pruning import Limits
from dscache.pruning.freeing import size_of
from dscache.pruning.inventory import Holding, Inventory
from dscache.pruning.protection import Protection
from dscache.results import DatasetUsage, Group, Usage

#: Upper ends of the groups by age, in days, with what they are called.
_AGES = ((1, "a day"), (7, "a week"), (30, "a month"), (365, "a year"))
_OLDER, _NO_PROJECT = "longer", "no project"
_DAY = 86400.0


def usage(call: Call, by: str = "dataset") -> Usage:
    """What the cache takes. What several datasets hold counts once.

    Args:
        by: "dataset", or what to group by: "registry", "project" or "age".
    """
    store = call.store
    now = store.clock()
    inventory = Inventory(store)
    protection = Protection(store, Limits.of(call.settings), now)
    named = inventory.size
    strays = sum(map(size_of, inventory.strays))
    rows = [_row(inventory, protection, each) for each in inventory.datasets]
    blobs = sum(here and not inventory.is_tree(n) for n, here in enumerate(inventory.present))
    return Usage(
        root=call.settings.cache_dir,
        bytes=named + strays,
        blobs=blobs + sum(not os.path.isdir(path) for path in inventory.strays),
        saved_bytes=sum(row.bytes for row in rows) - named,
        datasets=tuple(sorted(rows, key=lambda row: -row.bytes)),
        groups=() if by == "dataset" else tuple(_groups(inventory, protection, by, now)),
        counts=store.counters.total(),
    )


def _row(inventory: Inventory, protection: Protection, each: Holding) -> DatasetUsage:
    here = [n for n in each.things if inventory.present[n]]
    return DatasetUsage(
        name=each.reference.name,
        version=each.reference.version or "",
        registry=each.reference.registry or "",
        bytes=sum(inventory.sizes[n] for n in here),
        shared_bytes=sum(inventory.sizes[n] for n in here if inventory.holders[n] > 1),
        last_used=each.last_used,
        held_by=tuple(protection.holders(each.mark)),
    )


def _groups(inventory: Inventory, protection: Protection, by: str, now: float) -> Iterator[Group]:
    """The largest first; what two groups share counts in both."""
    members: dict[str, list[Holding]] = {}
    for each in inventory.datasets:
        for key in _keys(each, protection, by, now):
            members.setdefault(key, []).append(each)
    groups = [Group(key, _bytes(inventory, each), len(each)) for key, each in members.items()]
    yield from sorted(groups, key=lambda group: -group.bytes)


def _keys(each: Holding, protection: Protection, by: str, now: float) -> Sequence[str]:
    if by == "registry":
        return [each.reference.registry or ""]
    if by == "project":
        return protection.projects(each.mark) or [_NO_PROJECT]
    days = (now - each.last_used) / _DAY
    return [next((f"not used for up to {name}" for end, name in _AGES if days <= end), _OLDER)]


def _bytes(inventory: Inventory, holdings: Sequence[Holding]) -> int:
    things = {n for each in holdings for n in each.things if inventory.present[n]}
    return sum(inventory.sizes[n] for n in things)
