"""Pruning: what may go from the cache. Planned first, shown, then executed.

The archive of a tree may go once the tree stands: nothing reads it any more, and where the tree is
lost it is fetched again. It stays where another dataset uses it as it is, where another process
has it in work, and while a record cannot be read, which might name it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from dscache import disk
from dscache.digest import Digest
from dscache.results import Kept, Plan, Removal
from dscache.store import Record, Store, Unpacked, key_of


def plan(store: Store, wanted: Iterable[Record], *, archives: bool) -> Plan:
    """What may go of these datasets: with `archives`, the archives that are unpacked.

    Raises:
        StorageError: a record cannot be read.
    """
    if not archives:
        return Plan(())
    records = list(store.records.every())
    users = {file.sha256: record for record in records for file in record.files}
    removed: dict[str, Removal] = {}
    kept: dict[str, Kept] = {}
    for record, each in _archives(wanted):
        size = _size(store, each.sha256)
        if size is None or each.sha256 in removed or each.sha256 in kept:
            continue
        name = f"{record.reference}: {each.path}"
        user = users.get(each.sha256)
        if user:
            kept[each.sha256] = Kept(name, size, f"{user.reference} uses it as it is")
        elif store.trees.find(each.sha256, each.recipe) is None:
            kept[each.sha256] = Kept(name, size, "what it holds is not unpacked, or is damaged")
        else:
            removed[each.sha256] = Removal(
                "archive", name, size, "what it holds is unpacked", each.sha256
            )
    freed = sum(_freed(store, each.sha256) for each in removed.values())
    return Plan(tuple(removed.values()), tuple(kept.values()), freed)


def execute(store: Store, plan: Plan) -> Plan:
    """Remove what was planned, but for what another process has taken up meanwhile.

    Returns:
        What was done: `freed_bytes` is what the filesystem got back.
    """
    removed: list[Removal] = []
    kept = list(plan.kept)
    freed = 0
    for each in plan.removed:
        lock = store.locks.attempt(key_of(Digest("sha256", each.sha256)))
        if lock is None:
            kept.append(Kept(each.name, each.bytes, "another process is busy with it"))
            continue
        try:
            freed += _freed(store, each.sha256)
            store.blobs.drop(each.sha256)
        finally:
            lock.release()
        removed.append(each)
    return Plan(tuple(removed), tuple(kept), freed)


def _archives(records: Iterable[Record]) -> Iterator[tuple[Record, Unpacked]]:
    for record in records:
        for each in record.trees:
            yield record, each


def _freed(store: Store, sha256: str) -> int:
    """What the filesystem gets back for a blob: nothing as long as it has another name."""
    path = store.layout.blob(sha256)
    try:
        return disk.allocated(path) if os.stat(path).st_nlink == 1 else 0
    except FileNotFoundError:
        return 0


def _size(store: Store, sha256: str) -> int | None:
    try:
        return os.stat(store.layout.blob(sha256)).st_size
    except FileNotFoundError:
        return None
