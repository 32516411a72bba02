"""Hits: what stands in the cache already, told by a few looks at the disk.

The warm path of every fetch. It opens no connection, hashes nothing that is proven, and imports
nothing that only a download needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache

from dscache import view
from dscache.errors import StorageError
from dscache.model import Dataset
from dscache.results import Fetched
from dscache.store import Record, Store
from dscache.store.owner import this_boot
from dscache.store.records import LOOKED_AT
from dscache.wishes import Wish


def hit(store: Store, wish: Wish) -> Fetched | None:
    """What stands in the cache, if it is all that is asked for.

    Hashes nothing that the running boot, or a sync, has proven.
    """
    record = store.records.get(wish.dataset)
    if record is None or not _has_pinned(record, wish.dataset):
        return None
    if wish.patterns:
        looks, size = _selection(store, wish, record)
    else:
        looks, size = (record.looks(), record.size) if record.complete else (None, 0)
    if looks is None:
        return None
    folder = view_of(store, wish.dataset)
    if not (record.proven or prove(store, record)) or not view.is_whole(folder, looks):
        return None
    store.records.use(wish.dataset)
    return wish.fetched(folder, size, "cached")


def _has_pinned(record: Record, dataset: Dataset) -> bool:
    """False if a file that only a weak hash names is another one than a project has locked."""
    if not dataset.pins:
        return True
    found = {file.path: file.sha256 for file in record.files}
    found |= {each.path: each.sha256 for each in record.trees}
    return all(found.get(path, sha256) == sha256 for path, sha256 in dataset.pins)


def view_of(store: Store, dataset: Dataset | Record) -> str:
    """The folder in which the dataset stands, or would stand."""
    return store.layout.view(dataset.mark)


def is_listed(store: Store, dataset: Dataset) -> bool:
    """True if the names of all members of its archives are known."""
    record = store.records.get(dataset)
    trees = record.trees if record else ()
    return all(store.trees.is_listed(each.sha256, each.recipe) for each in trees)


def _selection(
    store: Store, wish: Wish, record: Record
) -> tuple[list[tuple[str, int]] | None, int]:
    """The files to look at, path and size, and the bytes of all that are asked for.

    None for the files if some may be missing, or none is known to match.
    """
    if not record.complete and not _has_all(store, wish, record):
        return None, 0
    # Of archives that were unpacked for a selection, only the view knows which members stand in it.
    is_open = any(not each.complete for each in record.trees)
    looks: list[tuple[str, int]] = []
    is_some, size = False, 0
    try:
        for item in view.Contents(store, record.files, record.trees, wish.wants):
            is_some, size = True, size + item.size
            if item.kind == "file" and (is_open or len(looks) < LOOKED_AT):
                looks.append((item.path, item.size))
    except OSError:
        return None, 0  # a tree is gone or damaged, and with it the names of its members
    return looks if is_some else None, size


def _has_all(store: Store, wish: Wish, record: Record) -> bool:
    """True if everything of the dataset that may match has been recorded."""
    files = {file.path for file in record.files}
    if wish.dataset.manifest:
        paths = listed(store, wish.dataset)
        return paths is not None and not any(
            wish.wants(path) and path not in files for path in paths
        )
    trees = {each.path for each in record.trees}
    return all(needed.path in (trees if needed.unpack else files) for needed in wish.needed())


def listed(store: Store, dataset: Dataset) -> Iterable[str] | None:
    """The paths of all files of a dataset with a manifest; None where that is not here."""
    listing = dataset.manifest
    blob = store.blobs.find(listing.file.digests) if listing else None
    if listing is None or blob is None:
        return None
    from dscache.registry import manifest  # late: most datasets have none

    local = dataset.base.startswith("file:")
    return (each.path for each in manifest.read(blob.path, listing, local=local))


def prove(store: Store, record: Record) -> bool:
    """Verify what a power cut could have torn, then make it durable. False if something is torn.

    Where that cannot be written down, as in a cache of others, each process verifies it once.
    """
    facts = (record.created, record.boot, len(record.files), len(record.trees), this_boot())
    try:
        _prove_once(_Doubt(store, record, facts))
    except _Torn:
        return False
    return True


class _Torn(Exception):
    """What a record names is not what it was; to be raised, since what is raised is not kept."""


class _Doubt:
    """A record that nothing proves yet: the same one as long as it is not written anew."""

    def __init__(self, store: Store, record: Record, facts: tuple[object, ...]) -> None:
        self.store = store
        self.record = record
        self._key = (store.layout.record(record.mark), facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Doubt) and other._key == self._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=64)
def _prove_once(doubt: _Doubt) -> None:
    if not _is_proven(doubt.store, doubt.record):
        raise _Torn


def _is_proven(store: Store, record: Record) -> bool:
    if not all(store.blobs.verify(each.sha256, each.size, each.xxh3_128) for each in record.files):
        return False
    if not all(store.trees.find(each.sha256, each.recipe) for each in record.trees):
        return False
    folder, contents = view_of(store, record), contents_of(store, record)
    if store.read_only:
        return view.is_sound(folder, contents)
    try:
        make_durable(store, record)
    except StorageError:
        # A full or read-only disk: what is right can be used, and is verified again next time.
        return view.is_sound(folder, contents)
    return True


def make_durable(store: Store, record: Record) -> None:
    """Mend the view of a record of which all was found right, bring it to the disk, and note that.

    Raises:
        StorageError: the disk does not take it.
    """
    folder, contents = view_of(store, record), contents_of(store, record)
    view.build(folder, contents)
    store.sync(record.files)
    for each in record.trees:
        store.trees.sync(each.sha256, each.recipe)
    view.sync(folder, contents)
    store.records.mark_durable(record)


def contents_of(store: Store, record: Record) -> view.Contents:
    """What has to stand in the view of a record.

    Of archives that were unpacked for a selection that is what does, and what its links lead to.
    """
    folder = view_of(store, record)

    def stands(path: str) -> bool:
        return os.path.lexists(f"{folder}/{path}")

    is_open = any(not each.complete for each in record.trees)
    return view.Contents(store, record.files, record.trees, stands if is_open else None)
