"""Fetching: hits first, then what has to be brought, then the user's folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dscache import view
from dscache.call import Call
from dscache.errors import DscacheError, IntegrityError, StorageError, TransferError
from dscache.events import Notice, Placed
from dscache.hits import is_listed, view_of
from dscache.layers import standing
from dscache.model import Dataset, Reference
from dscache.quantities import show_size
from dscache.results import Fetched, Plan
from dscache.store import Store
from dscache.store.counters import Counts
from dscache.store.roots import HARDLINKED, SYMLINKED, needs
from dscache.wishes import Wish

#: Ways of placing after which the user's folder still has to do with the cache.
_ROOTS = {"symlink": SYMLINKED, "hardlink": HARDLINKED}


def fetch(
    call: Call, wishes: Sequence[Wish], target: view.Target | None = None
) -> dict[Wish, Fetched]:
    """The outcome of every wish, in the user's folder `target` if there is one."""
    results: dict[Wish, Fetched] = {}
    stores: dict[Wish, Store] = {}
    misses: list[Wish] = []
    for wish in wishes:
        dataset = wish.dataset
        if dataset.yanked:
            call.emit(withdrawn(dataset))
        try:
            stores[wish], found = standing(call, wish)
            if found and target and not is_listed(stores[wish], wish.dataset):
                found = None  # what to place is not known any more
        except DscacheError as error:
            found = wish.failed(error)
        if found:
            results[wish] = found
        else:
            stores[wish] = call.store
            misses.append(wish)
    if misses:
        brought = {wish: _judged(call, wish, found) for wish, found in _bring(call, misses).items()}
        results |= brought
        call.store.counters.add(_counted(brought.values()))
        if not call.settings.keep_archives:
            _drop_archives(call, misses)
        if call.settings.auto_prune and call.settings.max_size:
            _keep_to_budget(call)
    if target is None:
        return results
    return {
        wish: found if found.error else _placed(call, stores[wish], wish, found, target)
        for wish, found in results.items()
    }


def withdrawn(dataset: Dataset) -> Notice:
    """What is to be said of a version that nobody should use any more."""
    return Notice(f"{dataset.reference} was withdrawn by its publisher: {dataset.yanked}")


def _bring(call: Call, wishes: Sequence[Wish]) -> dict[Wish, Fetched]:
    from dscache.bringing import Bringing  # late: a hit needs nothing of the engine

    results: dict[Wish, Fetched] = {}
    try:
        with closing(Bringing(call).run(wishes)) as outcomes:
            for wish, found in outcomes:
                results[wish] = found
    except DscacheError as error:  # it concerns the call as a whole: the disk, the locks
        for wish in wishes:
            results.setdefault(wish, wish.failed(error))
    return results


def _judged(call: Call, wish: Wish, found: Fetched) -> Fetched:
    """That every source has refused is one thing; that its publisher has other content under a
    version that is locked is another.
    """
    refused = isinstance(found.error, TransferError) and "status" in found.error.facts
    if not (refused and call.lookup.has_moved(wish.dataset)):
        return found
    message = f"{wish.dataset.reference} has other content in its registry than was locked, and "
    error = IntegrityError(
        f"{message}what was locked cannot be had any more: {found.error}",
        hint="to have the new content, `dscache remove` it, then add it again",
    )
    return replace(found, error=error)


def _drop_archives(call: Call, wishes: Sequence[Wish]) -> None:
    """Give up the archives of which all is unpacked now."""
    named = [wish.dataset.reference for wish in wishes if call.store.records.get(wish.dataset)]
    _pruned(call, named, "archives are kept", archives=True)


def _keep_to_budget(call: Call) -> None:
    """Prune what is too much, but for what anybody holds, this process included."""
    done = _pruned(call, (), "nothing was pruned", max_size=call.settings.max_size)
    gone = [row.name for row in done.removed if row.kind == "dataset"]
    if gone:
        freed = show_size(done.freed_bytes)
        call.emit(Notice(f"to keep to `max_size`, pruned {', '.join(gone)}; freed {freed}"))


def _pruned(call: Call, names: Sequence[Reference], otherwise: str, **policy: Any) -> Plan:
    """Prune by a policy. That it fails is said and no error: what was asked for is here."""
    from dscache import pruning  # late: a hit removes nothing

    limits = pruning.Limits.of(call.settings)
    try:
        plan = pruning.plan(call.store, names, pruning.Policy(**policy), limits)
        return pruning.execute(call.store, plan, limits)
    except StorageError as error:
        call.emit(Notice(f"{otherwise}: {error}"))
        return Plan(())


def _counted(results: Iterable[Fetched]) -> Counts:
    downloaded = saved = 0
    for found in results:
        downloaded += found.bytes_downloaded
        saved += found.size if found.status == "linked" else 0
    return Counts(downloaded=downloaded, saved=saved)


def _placed(call: Call, store: Store, wish: Wish, found: Fetched, target: view.Target) -> Fetched:
    """Put what stands in a store into the user's folder, and say how."""
    record = store.records.get(wish.dataset)
    if record is None:
        return found
    folder = f"{target.folder}/{wish.dataset.name}" if target.separate else target.folder
    wants = wish.wants if wish.patterns else None
    items = view.Contents(store, record.files, record.trees, wants)
    count = 0 if wants else len(record.files) + sum(each.files for each in record.trees)
    source = view_of(store, wish.dataset)
    if target.mode == "auto":
        target = replace(target, mode=call.settings.link)
    try:
        placed = view.place(target, folder, items, source, emit=call.emit, total=count)
    except DscacheError as error:
        return wish.failed(error)
    copied = f": {show_size(placed.copied)} were copied" if placed.copied else ""
    why = f" ({placed.why})" if placed.why else ""
    call.emit(Placed(f"{wish.dataset.name}: placed in {folder} by {placed.mode}{why}{copied}"))
    if store is call.store and placed.mode in _ROOTS:
        try:
            call.store.roots.register(needs(_ROOTS[placed.mode], folder, [wish.dataset.mark]))
        except StorageError as error:
            call.emit(Notice(f"a prune may take what {folder} shows: {error}"))
    path = Path(folder, Path(found.unwrap()).relative_to(source))
    return replace(found, path=path, link=placed.mode)
