"""Fetching: resolve, hit or miss, transfer, view, record. The path of one fetch, for many at once.

Each step sees only what the step before made. A dataset's record is written last; until then
nothing that was done counts, and whatever is done again finds its bytes in the store.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from dscache import view
from dscache.call import Call
from dscache.errors import DscacheError, ManualDownload, NotFound
from dscache.events import Notice, Planned, Waiting
from dscache.model import Artifact, Dataset
from dscache.quantities import show_size
from dscache.registry import manifest
from dscache.results import Fetched
from dscache.store import Blob, File, Record, Store
from dscache.store.locks import Lock
from dscache.store.owner import this_boot
from dscache.transfer.delivery import (
    Delivered,
    Delivery,
    Limits,
    Want,
    check_space,
    is_small,
    space_needed,
)


@dataclass(eq=False)
class Wish:
    """One dataset that is asked for, or a selection of its files, and how far it has come."""

    name: str
    dataset: Dataset
    patterns: tuple[str, ...] = ()
    began: float = field(default_factory=time.perf_counter)
    files: dict[str, File] = field(default_factory=dict)
    missing: int | None = None
    error: DscacheError | None = None
    downloaded: int = 0
    resumed: int = 0
    fresh: bool = False
    lock: Lock | None = None
    manifest: Blob | None = None

    def wants(self, path: str) -> bool:
        """True if the selection holds that file of the dataset."""
        return not self.patterns or any(fnmatch.fnmatchcase(path, each) for each in self.patterns)

    def take(self, delivered: Delivered) -> None:
        """Note what came of one artifact."""
        self.downloaded += delivered.downloaded
        self.resumed += delivered.resumed
        if delivered.error:
            self.error = self.error or delivered.error
        elif delivered.blob:
            blob, path = delivered.blob, delivered.want.artifact.path
            self.files[path] = File(path, blob.sha256, blob.size, blob.xxh3_128)
            self.fresh |= delivered.is_new


def hit(store: Store, wish: Wish) -> Fetched | None:
    """What stands in the cache already, if it is all that is asked for. Hashes nothing that the
    running boot, or a sync, has proven.
    """
    record = store.records.get(wish.dataset)
    if record is None:
        return None
    files = _selected(wish, record)
    if files is None:
        return None
    folder = view_of(store, wish.dataset)
    if not (record.proven or _prove(store, record)) or not view.is_whole(folder, files):
        return None
    store.records.use(wish.dataset)
    return _fetched(wish, folder, files, "cached")


def view_of(store: Store, dataset: Dataset) -> str:
    """The folder in which the dataset stands, or would stand."""
    return store.layout.view(dataset.registry, dataset.name, dataset.version, dataset.content)


def fetch(
    call: Call, wishes: Sequence[Wish], target: view.Target | None = None
) -> dict[Wish, Fetched]:
    """The outcome of every wish: hits first, then what has to be brought; put into `target`."""
    results = _fetch(call, wishes)
    if target is None:
        return results
    return {wish: _placed(call, wish, found, target) for wish, found in results.items()}


def _fetch(call: Call, wishes: Sequence[Wish]) -> dict[Wish, Fetched]:
    results: dict[Wish, Fetched] = {}
    misses: list[Wish] = []
    for wish in wishes:
        try:
            found = hit(call.store, wish)
        except DscacheError as error:
            wish.error = error
            results[wish] = _failed(wish)
            continue
        if found:
            results[wish] = found
        else:
            misses.append(wish)
    if not misses:
        return results
    try:
        results |= dict(Fetching(call).run(misses))
    except DscacheError as error:
        for wish in misses:
            wish.error = wish.error or error
    return results | {wish: _failed(wish) for wish in misses if wish not in results}


class Fetching:
    """Brings the datasets of one call into the store."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._store = call.store
        self._emit = call.emit

    def run(self, wishes: Sequence[Wish]) -> Iterator[tuple[Wish, Fetched]]:
        """Yield each wish with its outcome as soon as it is complete or has failed."""
        for wish in wishes:
            self._tell(wish.dataset)
        yield from self._manifests([wish for wish in wishes if wish.dataset.manifest])
        ours: list[Wish] = []
        others: list[Wish] = []
        for wish in wishes:
            if wish.error is None:
                (ours if self._claim(wish) else others).append(wish)
        try:
            yield from self._bring(ours)
            for wish in others:
                yield from self._after_others(wish)
        finally:
            for wish in wishes:
                _release(wish)

    def _tell(self, dataset: Dataset) -> None:
        name = str(dataset.reference)
        if dataset.yanked:
            self._emit(Notice(f"{name} was withdrawn by its publisher: {dataset.yanked}"))
        if any(artifact.unpack for artifact in dataset.artifacts):
            self._emit(Notice(f"{name}: archives are left packed; unpack them yourself"))
        others = self._store.records.contents(dataset)
        if others and dataset.content[:8] not in others:
            self._emit(Notice(f"{name} has other content than before; both are kept, side by side"))

    def _manifests(self, wishes: Sequence[Wish]) -> Iterator[tuple[Wish, Fetched]]:
        """Bring the lists of the datasets that have one; yield those whose list failed."""
        wants = [
            Want(number, wish.dataset.manifest.file)
            for number, wish in enumerate(wishes)
            if wish.dataset.manifest
        ]
        if not wants:
            return
        self._store.prepare()
        for delivered in self._delivery().run(wants):
            wish = wishes[delivered.want.fetch]
            wish.downloaded += delivered.downloaded
            wish.manifest = delivered.blob
            if delivered.error:
                wish.error = delivered.error
                yield wish, _failed(wish)

    def _claim(self, wish: Wish) -> bool:
        """Take the lock for the small files of a wish; False if another process has it."""
        if not any(is_small(each) for each in wish.dataset.artifacts) and not wish.dataset.manifest:
            return True
        self._store.prepare()
        wish.lock = self._store.locks.attempt(_lock_key(wish))
        return wish.lock is not None

    def _after_others(self, wish: Wish) -> Iterator[tuple[Wish, Fetched]]:
        """Wait for the process that fetches the same; mostly nothing is left to do then."""
        name = str(wish.dataset.reference)
        wish.lock = self._store.locks.wait(
            _lock_key(wish), lambda holder: self._emit(Waiting(name, holder))
        )
        if found := hit(self._store, wish):
            yield wish, found
        else:
            yield from self._bring([wish])

    def _bring(self, wishes: Sequence[Wish]) -> Iterator[tuple[Wish, Fetched]]:
        """Deliver every artifact; finish each wish when its last one is here."""
        self._store.prepare()
        plans = [self._plan(wish) for wish in wishes]
        self._announce(wishes)
        done: set[int] = set()
        for delivered in self._delivery().run(_wants(plans)):
            wish = wishes[delivered.want.fetch]
            wish.take(delivered)
            if wish.missing is not None:
                wish.missing -= 1
                if wish.missing == 0:
                    done.add(delivered.want.fetch)
                    yield wish, self._finish(wish)
        for number, wish in enumerate(wishes):
            if number not in done:
                yield wish, self._finish(wish)

    def _delivery(self) -> Delivery:
        settings = self._call.settings
        limits = Limits(
            jobs=settings.jobs,
            rate=settings.limit_rate,
            max_unknown_size=settings.max_unknown_size,
            policy=self._call.policy,
            offline=settings.offline,
        )
        return Delivery(self._store, self._call.sources, limits, self._emit)

    def _plan(self, wish: Wish) -> Iterable[Artifact]:
        """The artifacts that the wish asks for; a manifest's are read as they are needed."""
        dataset = wish.dataset
        if dataset.manifest and wish.manifest:
            local = dataset.base.startswith("file:")
            listed = manifest.read(wish.manifest.path, dataset.manifest, local=local)
            return (each for each in listed if wish.wants(each.path))
        chosen = [each for each in dataset.artifacts if wish.wants(each.path)]
        wish.missing = len(chosen)
        return chosen

    def _announce(self, wishes: Sequence[Wish]) -> None:
        chosen = [
            each for wish in wishes for each in wish.dataset.artifacts if wish.wants(each.path)
        ]
        self._emit(Planned(len(chosen), sum(each.size or 0 for each in chosen)))
        check_space(self._store, space_needed(self._store, chosen))

    def _finish(self, wish: Wish) -> Fetched:
        """View and record of a wish whose artifacts have all come, or its error."""
        try:
            return self._record(wish) if wish.error is None else _failed(wish)
        except DscacheError as error:
            wish.error = error
            return _failed(wish)
        finally:
            _release(wish)

    def _record(self, wish: Wish) -> Fetched:
        if not wish.files:
            raise _no_match(wish)
        if found := hit(self._store, wish):  # another process finished it meanwhile
            return _counted(wish, found)
        files = tuple(wish.files.values())
        folder = view_of(self._store, wish.dataset)
        view.build(folder, files, self._store.layout.blob)
        if self._store.durable:
            self._store.sync(files)
        self._store.records.put(self._merged(wish, files))
        return _counted(wish, _fetched(wish, folder, files, "linked"))

    def _merged(self, wish: Wish, files: tuple[File, ...]) -> Record:
        """The record of these files and of those that an earlier selection brought."""
        dataset = wish.dataset
        earlier = self._store.records.get(dataset)
        if earlier and not (earlier.proven or _prove(self._store, earlier)):
            earlier = None
        kept = [] if earlier is None else [f for f in earlier.files if f.path not in wish.files]
        together = (*kept, *files)
        if dataset.manifest:
            complete = not wish.patterns or bool(earlier and earlier.complete)
        else:
            complete = len(together) == len(dataset.artifacts)
        return Record(
            registry=dataset.registry,
            name=dataset.name,
            version=dataset.version,
            content=dataset.content,
            complete=complete,
            files=together,
            boot=this_boot(),
            durable=self._store.durable,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            summary=dataset.summary,
            url=dataset.base,
            first_use=dataset.first_use,
        )


def _wants(plans: Sequence[Iterable[Artifact]]) -> Iterator[Want]:
    for number, artifacts in enumerate(plans):
        yield from (Want(number, artifact) for artifact in artifacts)


def _selected(wish: Wish, record: Record) -> Sequence[File] | None:
    """The recorded files that are asked for; None if one may be missing."""
    if not wish.patterns:
        return record.files if record.complete else None
    files = [file for file in record.files if wish.wants(file.path)]
    if not record.complete:
        if wish.dataset.manifest:
            return None
        here = {file.path for file in files}
        if any(wish.wants(each.path) and each.path not in here for each in wish.dataset.artifacts):
            return None
    return files or None


def _prove(store: Store, record: Record) -> bool:
    """Verify what a power cut could have torn, then make it durable. False if something is torn."""
    blobs: list[Blob] = []
    for file in record.files:
        blob = store.blobs.verify(file.sha256, file.size, file.xxh3_128)
        if blob is None:
            return False
        blobs.append(blob)
    if store.is_writable:
        folder = store.layout.view(record.registry, record.name, record.version, record.content)
        view.build(folder, record.files, store.layout.blob)
        for blob in blobs:
            store.blobs.sync(blob)
        store.records.put(structs.replace(record, durable=True))
    return True


def _counted(wish: Wish, found: Fetched) -> Fetched:
    return replace(
        found,
        status="downloaded" if wish.fresh else "linked",
        bytes_downloaded=wish.downloaded,
        bytes_resumed=wish.resumed,
    )


def _fetched(wish: Wish, folder: str, files: Sequence[File], status: str) -> Fetched:
    dataset = wish.dataset
    single = len(dataset.artifacts) == 1 and not dataset.manifest
    path = Path(f"{folder}/{files[0].path}" if single else folder)
    return Fetched(
        name=dataset.name,
        version=dataset.version,
        registry=dataset.registry,
        path=path,
        status=status,
        size=sum(file.size for file in files),
        seconds=time.perf_counter() - wish.began,
    )


def _placed(call: Call, wish: Wish, found: Fetched, target: view.Target) -> Fetched:
    """Put what was fetched into the user's folder, and say how."""
    record = call.store.records.get(wish.dataset)
    if found.error or record is None:
        return found
    folder = f"{target.folder}/{wish.dataset.name}" if target.separate else target.folder
    files = [file for file in record.files if wish.wants(file.path)]
    source = view_of(call.store, wish.dataset)
    try:
        placed = view.place(target, folder, files, source)
    except DscacheError as error:
        return replace(found, path=None, error=error)
    copied = f": {show_size(placed.copied)} were copied" if placed.copied else ""
    call.emit(Notice(f"{wish.dataset.name}: placed in {folder} by {placed.mode}{copied}"))
    path = Path(folder, Path(found.unwrap()).relative_to(source))
    return replace(found, path=path, link=placed.mode)


def _failed(wish: Wish) -> Fetched:
    error = wish.error
    if isinstance(error, ManualDownload):
        error.hint = f"afterwards run `dscache import {wish.dataset.name} FILE`"
    return Fetched(
        name=wish.dataset.name,
        version=wish.dataset.version,
        registry=wish.dataset.registry,
        bytes_downloaded=wish.downloaded,
        bytes_resumed=wish.resumed,
        seconds=time.perf_counter() - wish.began,
        error=error,
    )


def _no_match(wish: Wish) -> NotFound:
    paths = [artifact.path for artifact in wish.dataset.artifacts]
    shown = ", ".join(paths[:5]) + (", …" if len(paths) > 5 else "")
    return NotFound(
        f"no file of {wish.dataset.reference} matches {' or '.join(wish.patterns)}",
        hint=f"its files are {shown}" if paths else "",
        files=list(wish.patterns),
    )


def _lock_key(wish: Wish) -> str:
    return f"fetch-{wish.dataset.content[:32]}"


def _release(wish: Wish) -> None:
    lock, wish.lock = wish.lock, None
    if lock:
        lock.release()
