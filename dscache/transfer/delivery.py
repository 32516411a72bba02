"""Delivery: every artifact that is wanted becomes a blob of the store.

What is in the store already is handed out at once. The rest is claimed, so that of many processes
one downloads: what somebody else has claimed is waited for after everything of one's own is done,
holding nothing, so that no two processes ever wait for each other. Locks are kept only where they
pay, for files above `SMALL`; the small files of a dataset are covered by the lock of their fetch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dscache import filesystem
from dscache.digest import Digest
from dscache.errors import (
    DscacheError,
    IntegrityError,
    ManualDownload,
    NotCached,
    StorageError,
    TransferError,
    UnsafeError,
)
from dscache.events import Emit, Failed, Finished, Notice, Waiting
from dscache.model import Artifact
from dscache.quantities import show_duration, show_size
from dscache.sources.exchange import Source, Trouble
from dscache.sources.retry import Budget, Policy
from dscache.store import SMALL, Blob, Store, key_of
from dscache.store.locks import Lock
from dscache.store.parts import Parts
from dscache.transfer.download import Download, State, Tried
from dscache.transfer.pool import Pool, hashing_threads
from dscache.transfer.sink import Memory, Sink, Trailed

_NEEDS_PERSON = frozenset({401, 403, 404, 410})
_TRANSIENT = frozenset({Trouble.CONNECTION, Trouble.BUSY, Trouble.SHORT, Trouble.RANGE})


@dataclass(frozen=True, slots=True)
class Want:
    """One artifact of one of the fetches of a call; `fetch` is the caller's number for it."""

    fetch: int
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Delivered:
    """A want that came true, or the error that says why not.

    Attributes:
        downloaded: bytes that crossed the network.
        resumed: bytes that earlier attempts had left.
        is_new: the blob was not in the store before.
    """

    want: Want
    blob: Blob | None
    error: DscacheError | None = None
    downloaded: int = 0
    resumed: int = 0
    is_new: bool = False


@dataclass(frozen=True)
class Limits:
    """How a call may use the network."""

    jobs: int
    rate: int
    max_unknown_size: int
    policy: Policy
    offline: bool = False


class Delivery:
    """Delivers the wants of one call."""

    def __init__(self, store: Store, source: Source, limits: Limits, emit: Emit) -> None:
        self._store = store
        self._limits = limits
        self._emit = emit
        self._executor: ThreadPoolExecutor = hashing_threads()
        self._pool = Pool(source, limits.jobs, limits.rate, self._executor, emit)
        self._parts: Parts = store.parts()
        self._budget = Budget(limits.policy)
        self._ready: list[Delivered] = []
        self._deferred: list[Want] = []
        self._claims: dict[Download, tuple[Want, Lock | None]] = {}
        self._same: dict[str, list[Want]] = {}

    def run(self, wants: Iterable[Want]) -> Iterator[Delivered]:
        """Yield every want once, in the order in which they come true or fail."""
        try:
            with filesystem.storage_errors("the download cannot be stored"):
                yield from self._deliver(wants, self._claim)
                while self._deferred:
                    again, self._deferred = self._deferred, []
                    yield from self._deliver(again, _First(self._wait, self._claim))
        finally:
            for _, lock in self._claims.values():
                if lock:
                    lock.release()
            self._executor.shutdown()

    def _deliver(
        self, wants: Iterable[Want], claim: Callable[[str], Lock | None]
    ) -> Iterator[Delivered]:
        for download in self._pool.run(self._downloads(wants, claim)):
            delivered = self._finish(download)
            yield from self._hand_out()
            yield delivered
            for twin in self._same.pop(download.key, []):
                yield self._twin(twin, delivered)
        yield from self._hand_out()

    def _hand_out(self) -> Iterator[Delivered]:
        ready, self._ready = self._ready, []
        yield from ready

    def _downloads(
        self, wants: Iterable[Want], claim: Callable[[str], Lock | None]
    ) -> Iterator[Download]:
        """The downloads that are needed; what needs none becomes ready on the way."""
        for want in wants:
            try:
                download = self._download(want, claim)
            except DscacheError as error:
                self._ready.append(Delivered(want, None, error))
            else:
                if download:
                    yield download

    def _download(self, want: Want, claim: Callable[[str], Lock | None]) -> Download | None:
        artifact = want.artifact
        if self._is_here(want):
            return None
        key = _key(artifact)
        if key in self._same:
            self._same[key].append(want)
            return None
        self._check_can_download(artifact)
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
            download = self._begin(key, artifact)
        except BaseException:
            if lock:
                lock.release()
            raise
        self._claims[download] = want, lock
        self._same[key] = []
        return download

    def _is_here(self, want: Want) -> bool:
        blob = self._store.blobs.find(want.artifact.digests)
        if blob:
            self._ready.append(Delivered(want, blob))
        return blob is not None

    def _check_can_download(self, artifact: Artifact) -> None:
        if not artifact.urls:
            raise manual(artifact)
        if self._limits.offline and not all(url.startswith("file:") for url in artifact.urls):
            raise NotCached(
                f"{artifact.path} is not in the cache, and this is offline mode",
                hint="run once without --offline (or DSCACHE_OFFLINE)",
                path=artifact.path,
            )

    def _begin(self, key: str, artifact: Artifact) -> Download:
        with filesystem.storage_errors("the download cannot be stored"):
            sink = self._sink(key, artifact)
        return Download(
            key=key,
            artifact=artifact,
            sink=sink,
            emit=self._emit,
            policy=self._limits.policy,
            budget=self._budget,
            limit=self._limits.max_unknown_size,
        )

    def _sink(self, key: str, artifact: Artifact) -> Sink:
        algorithms = [digest.algorithm for digest in artifact.digests]
        if is_small(artifact):
            return Memory(algorithms)
        part = self._parts.begin(key, artifact.size)
        return Trailed(part, algorithms, self._executor)

    def _claim(self, key: str) -> Lock | None:
        lock: Lock | None = self._store.locks.attempt(key)
        return lock

    def _wait(self, key: str) -> Lock:
        lock: Lock = self._store.locks.wait(
            key, lambda holder: self._emit(Waiting("another download of the same file", holder))
        )
        return lock

    def _finish(self, download: Download) -> Delivered:
        want, lock = self._claims.pop(download)
        try:
            if download.state is State.DONE:
                return self._publish(want, download)
            error = self._error(download)
            self._emit(Failed(download.key, str(error)))
            return Delivered(want, None, error, download.received, download.kept)
        finally:
            if lock:
                lock.release()

    def _publish(self, want: Want, download: Download) -> Delivered:
        sink, sums = download.sink, download.verified
        if sums is None:
            raise RuntimeError("a download is done only when it is verified")
        known_as = want.artifact.digests
        try:
            if isinstance(sink, Memory):
                blob = self._store.blobs.publish_bytes(sink.data, sums, known_as)
            elif isinstance(sink, Trailed):
                sink.release()
                part = sink.part
                blob = self._store.blobs.publish_file(part.path, part.size, sums, known_as)
                part.forget()
        except OSError as error:
            sink.keep()
            failure = filesystem.storage_error(f"{want.artifact.path} cannot be stored", error)
            return Delivered(want, None, failure, download.received, download.kept)
        self._emit(Finished(download.key, blob.size))
        return Delivered(want, blob, None, download.received, download.kept, is_new=True)

    def _twin(self, want: Want, delivered: Delivered) -> Delivered:
        """The outcome of a want for the very file that another want of this call asked for."""
        if delivered.blob is None:
            return Delivered(want, None, delivered.error)
        blob = self._store.blobs.find(want.artifact.digests)
        return Delivered(want, blob or delivered.blob)

    def _error(self, download: Download) -> DscacheError:
        kept = download.sink.size
        download.sink.keep()
        samples = [self._set_aside(download.artifact, tried) for tried in download.tried]
        return failure_of(download.artifact, download.tried, kept, [s for s in samples if s])

    def _set_aside(self, artifact: Artifact, tried: Tried) -> str:
        if not tried.sample:
            return ""
        path = self._store.set_aside(os.path.basename(artifact.path)[-80:], tried.sample)
        self._emit(Notice(f"{artifact.path}: wrong bytes from {tried.url}, kept in {path}"))
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


def is_small(artifact: Artifact) -> bool:
    """True for files that need neither lock nor journal."""
    return artifact.size is not None and artifact.size <= SMALL


def manual(artifact: Artifact) -> ManualDownload:
    """The error for an artifact that a person must download."""
    return ManualDownload(
        f"{artifact.path} must be downloaded by hand:\n{artifact.manual.strip()}",
        hint="afterwards run `dscache import NAME FILE`",
        path=artifact.path,
        instructions=artifact.manual,
    )


def failure_of(
    artifact: Artifact, tried: list[Tried], kept: int, samples: list[str]
) -> DscacheError:
    """The one error for a file that no source gave, by the kinds of what went wrong."""
    troubles = {each.failure.trouble for each in tried}
    statuses = {each.failure.status for each in tried}
    if artifact.manual and statuses & _NEEDS_PERSON:
        return manual(artifact)
    lines = "".join(f"\n  {each.url}: {each.failure.reason}" for each in tried)
    facts: dict[str, Any] = {
        "path": artifact.path,
        "sources": [{"url": each.url, "reason": each.failure.reason} for each in tried],
        "quarantine": samples,
        "bytes_kept": kept,
    }
    if troubles == {Trouble.UNSAFE}:
        return UnsafeError(f"{artifact.path} could not be fetched safely:{lines}", **facts)
    if Trouble.WRONG in troubles and not troubles & _TRANSIENT:
        expected = f"expected {artifact.identity}"
        size = f", {artifact.size} bytes" if artifact.size is not None else ""
        return IntegrityError(
            f"{artifact.path}: wrong bytes from every source ({expected}{size}):{lines}",
            hint=f"what came is kept in {', '.join(samples)}" if samples else "",
            **facts,
        )
    keep = f"{show_size(kept)} are kept and will be used; " if kept else ""
    waits = [each.failure.retry_after for each in tried if each.failure.retry_after]
    when = f"the server asks to wait {show_duration(min(waits))}; " if waits else ""
    return TransferError(
        f"{artifact.path} could not be downloaded:{lines}",
        hint=f"{keep}{when}run the same command again to go on",
        **facts,
    )


def _key(artifact: Artifact) -> str:
    identity = artifact.identity
    if identity:
        return key_of(identity)
    sources = "\n".join(artifact.urls).encode()
    return key_of(Digest("sha256", hashlib.sha256(sources).hexdigest()))


def space_needed(store: Store, artifacts: Iterable[Artifact]) -> int:
    """Bytes that downloading what is missing will take, as far as sizes are known."""
    parts = store.parts()
    needed = 0
    for each in artifacts:
        identity = each.identity
        if each.size and not (identity and store.blobs.may_have(identity)):
            kept = 0 if is_small(each) else parts.kept(_key(each))
            needed += max(0, each.size - kept)
    return needed


def check_space(store: Store, needed: int) -> None:
    """Make sure that `needed` bytes fit before anything is downloaded.

    Raises:
        StorageError: they do not; says how much is missing.
    """
    free = filesystem.free_space(store.layout.root)
    if needed > free:
        raise StorageError(
            f"{show_size(needed)} are needed, but only {show_size(free)} are free "
            f"in {store.layout.root}",
            hint=f"free {show_size(needed - free)} more, or set DSCACHE_DIR to another disk",
            needed=needed,
            free=free,
        )
