"""Hits: what stands in the cache already, told by a few looks at the disk.

The warm path of every fetch. It opens no connection, hashes nothing that is proven, and imports
nothing that only a download needs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import structs

from dscache import view
from dscache.errors import DscacheError, StorageError
from dscache.model import Dataset
from dscache.results import Fetched
from dscache.store import Blob, File, Record, Store


class Wish(msgspec.Struct, frozen=True, eq=False):
    """A dataset that is asked for, or those of its files that match a pattern.

    Patterns are fnmatch patterns on the whole relative path; `*` crosses `/`.
    """

    dataset: Dataset
    patterns: tuple[str, ...] = ()
    began: float = msgspec.field(default_factory=time.perf_counter)

    def wants(self, path: str) -> bool:
        """True if the selection holds that file of the dataset."""
        return not self.patterns or any(fnmatchcase(path, each) for each in self.patterns)

    def fetched(self, folder: str, files: Sequence[File], status: str) -> Fetched:
        """The result for files that stand in the dataset's folder."""
        dataset = self.dataset
        single = len(dataset.artifacts) == 1 and not dataset.manifest
        return Fetched(
            name=dataset.name,
            version=dataset.version,
            registry=dataset.registry,
            path=_path_of(f"{folder}/{files[0].path}" if single else folder),
            status=status,
            size=sum(file.size for file in files),
            seconds=time.perf_counter() - self.began,
        )

    def failed(self, error: DscacheError) -> Fetched:
        """The result where something went wrong."""
        return Fetched(
            name=self.dataset.name,
            version=self.dataset.version,
            registry=self.dataset.registry,
            seconds=time.perf_counter() - self.began,
            error=error,
        )


#: Taking a path apart is a good part of a hit, and a process asks for few of them again and again.
_path_of = lru_cache(maxsize=256)(Path)


def hit(store: Store, wish: Wish) -> Fetched | None:
    """What stands in the cache, if it is all that is asked for.

    Hashes nothing that the running boot, or a sync, has proven.
    """
    record = store.records.get(wish.dataset)
    if record is None:
        return None
    files = selected(store, wish, record)
    if files is None:
        return None
    folder = view_of(store, wish.dataset)
    if not (record.proven or prove(store, record)) or not view.is_whole(folder, files):
        return None
    store.records.use(wish.dataset)
    return wish.fetched(folder, files, "cached")


def view_of(store: Store, dataset: Dataset) -> str:
    """The folder in which the dataset stands, or would stand."""
    return store.layout.view(dataset.registry, dataset.name, dataset.version, dataset.content)


def selected(store: Store, wish: Wish, record: Record) -> Sequence[File] | None:
    """The recorded files that are asked for; None if one may be missing."""
    if record.complete and not wish.patterns:
        return record.files
    files = [file for file in record.files if wish.wants(file.path)]
    if not record.complete:
        listed = _listed(store, wish.dataset)
        here = {file.path for file in files}
        if listed is None or any(wish.wants(path) and path not in here for path in listed):
            return None
    return files or None


def _listed(store: Store, dataset: Dataset) -> Iterable[str] | None:
    """The paths of all files of a dataset; None where its manifest is not here."""
    if dataset.manifest is None:
        return (artifact.path for artifact in dataset.artifacts)
    blob = store.blobs.find(dataset.manifest.file.digests)
    if blob is None:
        return None
    from dscache.registry import manifest  # late: most datasets have none

    local = dataset.base.startswith("file:")
    return (each.path for each in manifest.read(blob.path, dataset.manifest, local=local))


def prove(store: Store, record: Record) -> bool:
    """Verify what a power cut could have torn, then make it durable. False if something is torn."""
    blobs: list[Blob] = []
    for file in record.files:
        blob = store.blobs.verify(file.sha256, file.size, file.xxh3_128)
        if blob is None:
            return False
        blobs.append(blob)
    folder = store.layout.view(record.registry, record.name, record.version, record.content)
    try:
        view.build(folder, record.files, store.layout.blob)
        for blob in blobs:
            store.blobs.sync(blob)
        view.sync(folder, record.files, store.layout.blob)
        store.records.put(structs.replace(record, durable=True))
    except StorageError:
        # A full or read-only disk: what is right can be used, and is verified again next time.
        return view.is_sound(folder, record.files, store.layout.blob)
    return True
