"""The catalogue: what is in the cache, and what the registries offer."""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from typing import TYPE_CHECKING

from dscache import disk
from dscache.call import Call
from dscache.errors import NotCached, UsageError
from dscache.layers import standing
from dscache.model import Dataset, Reference
from dscache.quantities import show_size
from dscache.results import Available, Cached, Info
from dscache.sheets import Sheet, Table
from dscache.store import Record, Store
from dscache.wishes import Wish

if TYPE_CHECKING:
    from dscache.registry.index import Row


def cached(call: Call) -> list[Cached]:
    """The datasets in the cache, by registry and name."""
    pins = call.store.roots.pins()
    return [row(call.store, record, pins) for record in call.store.records.all()]


def names(store: Store, *, pinned: bool = False) -> list[Reference]:
    """The full names of the datasets that have a record, by registry and name; none is read."""
    marks = store.roots.pins() if pinned else store.records.marks()
    found = dict.fromkeys(mark.rpartition("+")[0] for mark in marks)
    return sorted(filter(None, map(_reference, found)), key=str)


def _reference(name: str) -> Reference | None:
    try:
        found = Reference.parse(name)
    except UsageError:  # a file that somebody has put there
        return None
    return found if found.registry and found.version else None


def outline(call: Call) -> Sheet:
    """What can be said of a cache at once, however much is in it."""
    found = names(call.store)
    root = call.settings.cache_dir
    facts = [("folder", root), ("datasets", f"{len(found):,}")]
    with suppress(OSError):
        facts.append(("free on its disk", show_size(disk.free_space(root))))
    rows = tuple((str(each),) for each in found)
    return Sheet("Cache", tuple(facts), (Table("datasets", ("dataset",), rows),) if rows else ())


def row(store: Store, record: Record, pins: Container[str] | None = None) -> Cached:
    """One cached dataset."""
    return Cached(
        name=record.name,
        version=record.version,
        registry=record.registry,
        bytes=record.size,
        last_used=store.records.last_used(record),
        complete=record.complete,
        pinned=record.mark in (store.roots.pins() if pins is None else pins),
    )


def available(call: Call, text: str) -> list[Available]:
    """What the registries offer; with `text`, where it occurs in name, alias or summary.

    A dataset that an earlier registry hides is listed too, since `registry/name` reaches it.
    """
    here = {(each.registry, each.name, each.version) for each in names(call.store)}
    wanted = text.casefold()
    found = []
    for registry, name, row in call.lookup.available():
        if wanted in name or _says(row, wanted):
            known = (registry.name, name, row.version) in here
            found.append(
                Available(
                    name,
                    row.version,
                    registry.name,
                    row.size,
                    row.summary,
                    known,
                    row.versions or (row.version,),
                )
            )
    return found


def _says(row: Row, wanted: str) -> bool:
    return wanted in row.summary.casefold() or any(wanted in alias for alias in row.aliases)


def info(call: Call, reference: Reference) -> Info:
    """All that is known of one dataset."""
    dataset = call.lookup.find(reference)
    store, found = standing(call, Wish(dataset))
    is_locked = call.lookup.locked(dataset.reference) == dataset
    return Info(
        dataset=dataset,
        versions=(dataset.version,) if is_locked else tuple(call.lookup.versions(dataset)),
        registry_url=dataset.base,
        also_in=() if is_locked else tuple(call.lookup.also_in(dataset)),
        path=found.path if found else None,
        archives_dropped=_are_archives_dropped(store, dataset),
    )


def recorded(call: Call, reference: Reference) -> list[Record]:
    """The records of a dataset, of all cached versions where none is named.

    Raises:
        NotCached: nothing of that name is in the cache.
    """
    found = [each for each in call.store.records.all() if reference.means(each.reference)]
    if not found:
        raise NotCached(f"{reference} is not in the cache", name=str(reference))
    return found


def _are_archives_dropped(store: Store, dataset: Dataset) -> bool:
    record = store.records.get(dataset)
    return record is not None and any(
        not os.path.exists(store.layout.blob(each.sha256)) for each in record.trees
    )
