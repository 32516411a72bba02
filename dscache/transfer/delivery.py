"""Delivery: every artifact that is wanted becomes a blob of the store.

An archive that is to be unpacked becomes a tree as well, under the same claim. What is in the
store already is handed out at once. The rest is claimed, so that of many processes
one downloads: what somebody else has claimed is waited for after everything of one's own is done,
holding no claim, so that no two processes ever wait for each other. Locks are kept only where they
pay, for files above `SMALL`; the small files of a dataset are covered by the lock of their fetch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from dscache import disk
from dscache.errors import (
    DscacheError,
    NotCached,
    StorageError,
)
from dscache.events import Emit, Failed, Finished, Notice, Waiting
from dscache.model import Artifact
from dscache.sources.exchange import Source, Trouble
from dscache.sources.retry import Budget, Policy
from dscache.store import Blob, Store
from dscache.store.locks import Lock
from dscache.store.parts import Parts
from dscache.transfer.download import Download, State, Tried
from dscache.transfer.extraction import Extraction, Extractions
from dscache.transfer.failures import failure_of, manual
from dscache.transfer.hashing import hashing_threads
from dscache.transfer.here import lent, tree_of
from dscache.transfer.parcel import Parcel
from dscache.transfer.pool import Pool, Task
from dscache.transfer.remote import Near, Remote
from dscache.transfer.sink import Memory, Trailed
from dscache.transfer.space import too_little
from dscache.transfer.wants import Delivered, Want, claim_key, is_small

if TYPE_CHECKING:
    from dscache.unpack.rules import Limits as UnpackLimits
    from dscache.unpack.unpacking import Unpacking


_HTTP = ("http:", "https:")


class Limits(msgspec.Struct, frozen=True):
    """How a call may use the network."""

    jobs: int
    rate: int
    max_unknown_size: int
    policy: Policy
    unpack: UnpackLimits
    offline: bool = False


class Delivery:
    """Delivers the wants of one call; what `layers` have is copied from there, and the `remote` is
    asked before the sources of the registry.
    """

    def __init__(
        self,
        store: Store,
        source: Source,
        limits: Limits,
        emit: Emit,
        layers: Sequence[Store] = (),
        remote: Remote | None = None,
    ) -> None:
        self._store = store
        self._layers = layers
        self._remote = remote
        self._has_other_ways = bool(layers or remote or limits.offline)
        self._limits = limits
        self._emit = emit
        self._executor: ThreadPoolExecutor = hashing_threads()
        self._pool = Pool(source, limits.jobs, limits.rate, emit)
        self._parts: Parts = store.parts()
        self._budget = Budget(limits.policy)
        self._ready: list[Delivered] = []
        self._deferred: list[Want] = []
        self._claims: dict[Task, tuple[Want, Lock | None]] = {}
        self._extractions = Extractions(store, limits.unpack, limits.jobs, emit)
        self._same: dict[str, list[Want]] = {}

    def run(self, wants: Iterable[Want]) -> Generator[Delivered, None, None]:
        """Yield every want once, in the order in which they come true or fail.

        However this ends, what has arrived is kept for a later attempt, and the locks are free.
        """
        try:
            with disk.storage_errors("the download cannot be stored"):
                yield from self._deliver(wants, self._claim)
                while self._deferred:
                    again, self._deferred = self._deferred, []
                    yield from self._deliver(again, _First(self._wait, self._claim))
        except StorageError as error:
            raise self._explained(error) from error
        finally:
            with ExitStack() as ending:  # all of it, whatever may fail
                ending.callback(self._executor.shutdown)
                ending.callback(self._extractions.close)
                for task, (_, lock) in self._claims.items():
                    if lock:
                        ending.callback(lock.release)
                    if isinstance(task, Extraction):
                        ending.callback(task.unpacking.stop)
                    elif isinstance(task, Download):
                        ending.callback(task.sink.keep)

    def _deliver(
        self, wants: Iterable[Want], claim: Callable[[str], Lock | None]
    ) -> Iterator[Delivered]:
        with closing(self._pool.run(self._tasks(wants, claim))) as finished:
            for task in finished:
                delivered = self._finish(task)
                if self._ready:
                    yield from self._hand_out()
                if delivered:
                    yield delivered
                    if twins := self._same.pop(task.key):
                        yield from self._twins(twins, delivered)
        yield from self._hand_out()

    def _hand_out(self) -> Iterator[Delivered]:
        ready, self._ready = self._ready, []
        yield from ready

    def _tasks(self, wants: Iterable[Want], claim: Callable[[str], Lock | None]) -> Iterator[Task]:
        """What has to be done; wants that need nothing become ready on the way."""
        for want in wants:
            try:
                task = self._task(want, claim)
            except DscacheError as error:
                self._ready.append(Delivered(want, error=error))
            else:
                if task:
                    yield task

    def _task(self, want: Want, claim: Callable[[str], Lock | None]) -> Task | None:
        artifact = want.artifact
        if self._is_here(want):
            return None
        key = claim_key(artifact)
        if key in self._same:
            self._same[key].append(want)
            return None
        if self._is_parcel(artifact):
            return self._claimed(Parcel(key, artifact, self._opened), want)
        lock = None
        if not is_small(artifact):
            lock = claim(key)
            if lock is None:
                self._deferred.append(want)
                return None
            if self._is_here(want):  # somebody else was faster
                lock.release()
                return None
        try:
            task = self._extraction(want) or self._begin(key, artifact)
        except BaseException:
            if lock:
                lock.release()
            raise
        return self._claimed(task, want, lock)

    def _claimed(self, task: Task, want: Want, lock: Lock | None = None) -> Task:
        self._claims[task] = want, lock
        self._same[task.key] = []
        return task

    def _is_here(self, want: Want) -> bool:
        delivered = self._look(want)
        if delivered:
            self._ready.append(delivered)
        return delivered is not None

    def _look(self, want: Want) -> Delivered | None:
        """What the store has for a want already, if that is enough."""
        if want.artifact.unpack:
            tree = tree_of(self._store, want.artifact)
            return Delivered(want, tree=tree) if tree else None
        blob = self._store.blobs.find(want.artifact.digests)
        return Delivered(want, blob) if blob else None

    def _extraction(self, want: Want) -> Extraction | None:
        """What there is to do where only the tree is missing."""
        blob = self._store.blobs.find(want.artifact.digests) if want.artifact.unpack else None
        return self._extractions.begin(Delivered(want, blob)) if blob else None

    def _usable(self, artifact: Artifact) -> Artifact:
        """The artifact with those of its sources that may be asked."""
        if not artifact.urls:
            raise manual(artifact)
        if not self._limits.offline:
            return artifact
        local = tuple(url for url in artifact.urls if url.startswith("file:"))
        if not local:
            raise NotCached(
                f"{artifact.path} is not in the cache, and this is offline mode",
                hint="run once without --offline (or DSCACHE_OFFLINE)",
                path=artifact.path,
            )
        return replace(artifact, urls=local)

    def _is_parcel(self, artifact: Artifact) -> bool:
        """True for what nearly always comes whole from the first of its sources."""
        if self._has_other_ways or artifact.unpack or not (artifact.hash and artifact.urls):
            return False
        return is_small(artifact) and artifact.urls[0].startswith(_HTTP)

    def _opened(self, parcel: Parcel) -> Download:
        """The download that takes over from a parcel."""
        download = self._begin(parcel.key, parcel.artifact)
        self._claims[download] = self._claims.pop(parcel)
        return download

    def _begin(self, key: str, artifact: Artifact) -> Download:
        path = lent(self._layers, artifact) or ""
        near = Near(Path(path).as_uri()) if path else None
        if self._remote and not near:
            near = self._remote.near(artifact)
        if near:
            artifact = replace(artifact, urls=(near.url, *artifact.urls))
        artifact = self._usable(artifact)
        return Download(
            key=key,
            artifact=artifact,
            sink=self._sink(key, artifact, path),
            emit=self._emit,
            policy=self._limits.policy,
            budget=self._budget,
            limit=self._limits.max_unknown_size,
            near=near,
        )

    def _sink(self, key: str, artifact: Artifact, path: str) -> Memory | Trailed:
        """Where the bytes go; `path` is a file that should have them already."""
        algorithms = [digest.algorithm for digest in artifact.digests]
        if is_small(artifact):
            return Memory(algorithms)
        with disk.storage_errors(f"{artifact.path} cannot be stored"):
            part = self._parts.begin(key, artifact.size, path)
        unpacking = self._extractions.follow(artifact, key, part.path)
        return Trailed(part, algorithms, self._executor, unpacking)

    def _claim(self, key: str) -> Lock | None:
        lock: Lock | None = self._store.locks.attempt(key)
        return lock

    def _wait(self, key: str) -> Lock:
        lock: Lock = self._store.locks.wait(
            key, lambda holder: self._emit(Waiting("another download of the same file", holder))
        )
        return lock

    def _explained(self, error: StorageError) -> StorageError:
        """Of a disk that is full, say how much is missing."""
        if error.facts.get("errno") not in disk.FULL:
            return error
        downloads = [each for each in self._claims if isinstance(each, Download)]
        sinks = [(download.total or 0, download.sink) for download in downloads]
        needed = sum(max(0, size - sink.allocated) for size, sink in sinks)
        needed += sum(each.size for each in self._claims if isinstance(each, Parcel))
        return too_little(self._store, needed, sum(sink.count for _, sink in sinks))

    def _finish(self, task: Task) -> Delivered | None:
        """What came of a task; None where its blob is still to be unpacked."""
        want, lock = self._claims[task]
        if isinstance(task, Extraction):
            delivered = self._with_tree(task.delivered, task.unpacking)
        elif isinstance(task, Parcel):
            delivered = self._arrived(want, task)
        else:
            delivered = self._stored(want, task)
            if delivered.blob and want.artifact.unpack:
                unpacking = task.sink.unpacking if isinstance(task.sink, Trailed) else None
                if unpacking is None:
                    self._extract(task, delivered, lock)
                    return None
                delivered = self._with_tree(delivered, unpacking)
        if delivered.error:
            self._emit(Failed(claim_key(want.artifact), str(delivered.error)))
        del self._claims[task]
        if lock:
            lock.release()
        return delivered

    def _arrived(self, want: Want, parcel: Parcel) -> Delivered:
        """The blob of a parcel."""
        self._budget.refill()
        artifact, size = parcel.artifact, parcel.size
        try:
            with disk.storage_errors(f"{artifact.path} cannot be stored"):
                blob = self._store.blobs.publish_bytes(parcel.data, parcel.sums, artifact.digests)
        except StorageError as refused:
            return Delivered(want, error=self._explained(refused), downloaded=size)
        self._emit(Finished(parcel.key, size))
        return Delivered(want, blob, downloaded=size, is_new=True, is_from_origin=True)

    def _stored(self, want: Want, download: Download) -> Delivered:
        """The blob of a download that has ended, or why there is none."""
        is_lent = download.is_near and not (download.near and download.near.remote)
        resumed = 0 if is_lent else download.kept
        delivered = Delivered(want, downloaded=download.received, resumed=resumed)
        try:
            samples = [self._set_aside(want, tried) for tried in download.tried]
            if download.state is State.DONE:
                blob = self._publish(want.artifact, download)
                self._emit(Finished(download.key, blob.size))
                is_far = not download.is_near
                return replace(delivered, blob=blob, is_new=not is_lent, is_from_origin=is_far)
            download.sink.keep()
            kept = download.sink.count
            error = failure_of(download.artifact, download.tried, kept, samples)
        except StorageError as refused:
            error = self._explained(refused)
            download.sink.keep()
        return replace(delivered, error=error)

    def _publish(self, artifact: Artifact, download: Download) -> Blob:
        sink, sums = download.sink, download.verified
        if sums is None:
            raise RuntimeError("a download is done only when it is verified")
        blobs, known_as = self._store.blobs, artifact.digests
        with disk.storage_errors(f"{artifact.path} cannot be stored"):
            if not isinstance(sink, Trailed):
                return blobs.publish_bytes(b"".join(sink.chunks()), sums, known_as)
            sink.release()
            blob = blobs.publish_file(sink.part.path, sink.part.size, sums, known_as)
            sink.part.forget()
            return blob

    def _extract(self, done: Task, delivered: Delivered, lock: Lock | None) -> None:
        """Have what was delivered unpacked; the claim stays until that is done."""
        task = self._extractions.begin(delivered)
        del self._claims[done]
        self._claims[task] = delivered.want, lock
        self._pool.add(task)

    def _with_tree(self, delivered: Delivered, unpacking: Unpacking) -> Delivered:
        """What was delivered, unpacked; or why it cannot be. The blob stays in the store."""
        if delivered.blob is None:
            raise RuntimeError("what is unpacked is here")
        try:
            return replace(delivered, tree=unpacking.publish(delivered.blob))
        except DscacheError as error:
            return replace(delivered, error=error)

    def _twins(self, twins: list[Want], delivered: Delivered) -> Iterator[Delivered]:
        """What comes of other wants of this call for the very file that was delivered."""
        for twin in twins:
            has_other_sources = twin.artifact.urls != delivered.want.artifact.urls
            if delivered.blob is None and not has_other_sources:
                yield Delivered(twin, error=delivered.error)
            elif delivered.blob and (found := self._look_again(twin)):
                yield found
            else:
                self._deferred.append(twin)

    def _look_again(self, want: Want) -> Delivered | None:
        try:
            return self._look(want)
        except DscacheError as error:
            return Delivered(want, error=error)

    def _set_aside(self, want: Want, tried: Tried) -> str:
        """Keep what a source has sent instead of the file, and say so; return where it is."""
        if tried.failure.trouble is not Trouble.WRONG:
            return ""
        path = ""
        with suppress(OSError):  # of the disk that is full we shall hear in another place
            name = os.path.basename(want.artifact.path)[-80:]
            path = self._store.set_aside(name, tried.sample) if tried.sample else ""
        kept = f"; it is kept in {path}" if path else ""
        self._emit(Notice(f"{want.artifact.path}: {tried.url}: {tried.failure.reason}{kept}"))
        return path


class _First:
    """Waits for the first claim and only tries the others, so as never to wait holding one."""

    def __init__(
        self, wait: Callable[[str], Lock | None], attempt: Callable[[str], Lock | None]
    ) -> None:
        self._claim, self._attempt = wait, attempt

    def __call__(self, key: str) -> Lock | None:
        claim, self._claim = self._claim, self._attempt
        return claim(key)
