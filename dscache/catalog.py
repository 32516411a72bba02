"""The catalogue: what is in the cache, what the registries offer, and what it all takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from dscache.call import Call
from dscache.hits import hit
from dscache.model import Reference
from dscache.results import Available, Cached, DatasetUsage, Info, Usage
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
    )


def usage(call: Call) -> Usage:
    """What the cache takes on the disk. A blob counts once, however many datasets hold it."""
    records = list(call.store.records.all())
    holders = Counter(sha256 for record in records for sha256 in {f.sha256 for f in record.files})
    rows = []
    for record in records:
        files = {file.sha256: file.size for file in record.files}
        shared = sum(size for sha256, size in files.items() if holders[sha256] > 1)
        rows.append(
            DatasetUsage(
                name=record.name,
                version=record.version,
                registry=record.registry,
                bytes=record.size,
                shared_bytes=shared,
                last_used=call.store.records.last_used(record),
            )
        )
    sizes = list(_blob_sizes(call.store.layout.blobs))
    named = {file.sha256: file.size for record in records for file in record.files}
    return Usage(
        root=call.settings.cache_dir,
        bytes=sum(sizes),
        blobs=len(sizes),
        saved_bytes=sum(row.bytes for row in rows) - sum(named.values()),
        datasets=tuple(sorted(rows, key=lambda row: -row.bytes)),
    )


def _blob_sizes(folder: str) -> Iterator[int]:
    try:
        shards = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for shard in shards:
        with os.scandir(shard.path) as entries:
            yield from (entry.stat().st_size for entry in entries)
