"""The catalogue: what is in the cache, what the registries offer, and what it all takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping

from dscache.call import Call
from dscache.errors import NotCached
from dscache.hits import hit
from dscache.model import Dataset, Reference
from dscache.results import Available, Cached, DatasetUsage, Info, Usage
from dscache.store import Record
from dscache.wishes import Wish


def cached(call: Call) -> list[Cached]:
    """The datasets in the cache, by registry and name."""
    records = call.store.records
    return [
        Cached(
            name=record.name,
            version=record.version,
            registry=record.registry,
            bytes=record.size,
            last_used=records.last_used(record),
            complete=record.complete,
        )
        for record in records.all()
    ]


def available(call: Call, text: str) -> list[Available]:
    """What the registries offer; with `text`, where it occurs in name, alias or summary.

    A dataset that an earlier registry hides is listed too, since `registry/name` reaches it.
    """
    here = {(record.registry, record.name, record.version) for record in call.store.records.all()}
    wanted = text.casefold()
    found = []
    for registry, name, row in call.lookup.available():
        if wanted and wanted not in " ".join((name, *row.aliases, row.summary)).casefold():
            continue
        known = (registry.name, name, row.version) in here
        found.append(Available(name, row.version, registry.name, row.size, row.summary, known))
    return found


def info(call: Call, reference: Reference) -> Info:
    """All that is known of one dataset."""
    dataset = call.lookup.find(reference)
    found = hit(call.store, Wish(dataset))
    return Info(
        dataset=dataset,
        versions=tuple(call.lookup.versions(dataset)),
        registry_url=dataset.base,
        also_in=tuple(call.lookup.also_in(dataset)),
        path=found.path if found else None,
        archives_dropped=_are_archives_dropped(call, dataset),
    )


def recorded(call: Call, names: Iterable[str]) -> list[Record]:
    """The records of these datasets, all cached versions where none is named; without names, all.

    Raises:
        NotCached: nothing of that name is in the cache.
        UsageError: a name is malformed.
    """
    records = list(call.store.records.all())
    references = [Reference.parse(name) for name in names]
    for each in references:
        if not any(_is_named(record, each) for record in records):
            raise NotCached(f"{each} is not in the cache", name=str(each))
    return [
        record
        for record in records
        if not references or any(_is_named(record, each) for each in references)
    ]


def _is_named(record: Record, reference: Reference) -> bool:
    return (
        record.name == reference.name
        and reference.registry in (None, record.registry)
        and reference.version in (None, record.version)
    )


def _are_archives_dropped(call: Call, dataset: Dataset) -> bool:
    record = call.store.records.get(dataset)
    layout = call.store.layout
    return record is not None and any(
        not os.path.exists(layout.blob(each.sha256)) for each in record.trees
    )


def usage(call: Call) -> Usage:
    """What the cache takes on the disk. What several datasets hold counts once."""
    store = call.store
    blobs = _blob_sizes(store.layout.blobs)
    trees = {(tree.sha256, tree.recipe): tree.bytes for tree in store.trees.all()}
    held_by = [(record, _parts(record, blobs)) for record in store.records.all()]
    holders = Counter(part for _, held in held_by for part in held)
    rows = [
        DatasetUsage(
            name=record.name,
            version=record.version,
            registry=record.registry,
            bytes=sum(held.values()),
            shared_bytes=sum(size for part, size in held.items() if holders[part] > 1),
            last_used=store.records.last_used(record),
        )
        for record, held in held_by
    ]
    named = {part: size for _, held in held_by for part, size in held.items()}
    return Usage(
        root=call.settings.cache_dir,
        bytes=sum(blobs.values()) + sum(trees.values()),
        blobs=len(blobs),
        saved_bytes=sum(row.bytes for row in rows) - sum(named.values()),
        datasets=tuple(sorted(rows, key=lambda row: -row.bytes)),
    )


def _parts(record: Record, blobs: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """The bytes of each blob and tree of a dataset, archives included as long as they are kept."""
    parts = {(file.sha256, ""): file.size for file in record.files}
    for each in record.trees:
        parts[each.sha256, each.recipe] = each.bytes
        if each.sha256 in blobs:
            parts[each.sha256, ""] = each.size
    return parts


def _blob_sizes(folder: str) -> dict[str, int]:
    """The bytes of every blob on the disk, by its sha256."""
    sizes: dict[str, int] = {}
    try:
        shards = list(os.scandir(folder))
    except FileNotFoundError:
        return sizes
    for shard in shards:
        with os.scandir(shard.path) as entries:
            for entry in entries:
                sizes[shard.name + entry.name] = entry.stat().st_size
    return sizes
