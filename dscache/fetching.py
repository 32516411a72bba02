"""Fetching: hits first, then what has to be brought, then the user's folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from dscache import view
from dscache.call import Call
from dscache.errors import DscacheError
from dscache.events import Notice
from dscache.hits import hit, is_listed, view_of
from dscache.quantities import show_size
from dscache.results import Fetched
from dscache.wishes import Wish


def fetch(
    call: Call, wishes: Sequence[Wish], target: view.Target | None = None
) -> dict[Wish, Fetched]:
    """The outcome of every wish, in the user's folder `target` if there is one."""
    results: dict[Wish, Fetched] = {}
    misses: list[Wish] = []
    for wish in wishes:
        dataset = wish.dataset
        if dataset.yanked:
            withdrawn = f"{dataset.reference} was withdrawn by its publisher: {dataset.yanked}"
            call.emit(Notice(withdrawn))
        try:
            found = hit(call.store, wish)
            if found and target and not is_listed(call.store, wish.dataset):
                found = None  # what to place is not known any more
        except DscacheError as error:
            found = wish.failed(error)
        if found:
            results[wish] = found
        else:
            misses.append(wish)
    if misses:
        results |= _bring(call, misses)
        if not call.settings.keep_archives:
            _drop_archives(call, misses)
    if target is None:
        return results
    return {wish: _placed(call, wish, found, target) for wish, found in results.items()}


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


def _drop_archives(call: Call, wishes: Sequence[Wish]) -> None:
    """Give up the archives of which all is unpacked now."""
    from dscache import pruning  # late: a hit drops nothing

    records = [call.store.records.get(wish.dataset) for wish in wishes]
    named = [record for record in records if record]
    pruning.execute(call.store, pruning.plan(call.store, named, archives=True))


def _placed(call: Call, wish: Wish, found: Fetched, target: view.Target) -> Fetched:
    """Put what was fetched into the user's folder, and say how."""
    record = call.store.records.get(wish.dataset)
    if found.error or record is None:
        return found
    folder = f"{target.folder}/{wish.dataset.name}" if target.separate else target.folder
    wants = wish.wants if wish.patterns else None
    items = view.Contents(call.store, record.files, record.trees, wants)
    count = 0 if wants else len(record.files) + sum(each.files for each in record.trees)
    source = view_of(call.store, wish.dataset)
    if target.mode == "auto":
        target = replace(target, mode=call.settings.link)
    try:
        placed = view.place(target, folder, items, source, emit=call.emit, total=count)
    except DscacheError as error:
        return wish.failed(error)
    copied = f": {show_size(placed.copied)} were copied" if placed.copied else ""
    why = f" ({placed.why})" if placed.why else ""
    call.emit(Notice(f"{wish.dataset.name}: placed in {folder} by {placed.mode}{why}{copied}"))
    path = Path(folder, Path(found.unwrap()).relative_to(source))
    return replace(found, path=path, link=placed.mode)
