"""Pinning: datasets that a user wants to keep, whatever a prune is asked for."""

from __future__ import annotations

from dscache import catalog
from dscache.call import Call
from dscache.errors import NotCached, NotFound
from dscache.model import Reference
from dscache.results import Cached
from dscache.store import Record


def pin(call: Call, reference: Reference) -> Cached:
    """Keep a dataset; without a version the current one.

    Raises:
        NotCached: it is not in the cache.
        StorageError: the cache does not take it.
    """
    record = _meant(call, reference)
    call.store.roots.pin(record.mark)
    call.let_pass([record.mark], str(record.reference))
    if call.store.records.load(record.mark) is None:  # a prune was faster
        call.store.roots.unpin(record.mark)
        raise NotCached(f"{record.reference} is not in the cache any more", name=str(reference))
    return catalog.row(call.store, record)


def unpin(call: Call, reference: Reference) -> Cached:
    """Let a dataset go with the next prune that wants it; raises as `pin`."""
    record = _meant(call, reference)
    call.store.roots.unpin(record.mark)
    return catalog.row(call.store, record)


def _meant(call: Call, reference: Reference) -> Record:
    """The cached dataset that is meant; of what no registry knows any more, the last used."""
    try:
        dataset = call.lookup.find(reference)
    except NotFound:
        return max(catalog.recorded(call, reference), key=call.store.records.last_used)
    found = catalog.recorded(call, Reference(dataset.name, dataset.registry))
    for record in found:
        if record.mark == dataset.mark:
            return record
    others = ", ".join(sorted({record.version for record in found}))
    raise NotCached(
        f"{dataset.reference} is not in the cache, only {others}",
        hint=f"name a version, or fetch it first: `dscache fetch {reference}`",
        name=str(reference),
    )
