"""Bringing: what is missing comes into the store; transfer, unpack, view, record, for many at once.

Each step sees only what the step before made. A dataset's record is written last; until then
nothing that was done counts, and whatever is done again finds its bytes in the store.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice

import msgspec
from msgspec.structs import replace

from dscache import disk, recording
from dscache.call import Call
from dscache.claiming import Claims
from dscache.digest import Digest
from dscache.errors import DscacheError, ManualDownload
from dscache.events import Notice, Planned, Waiting
from dscache.hits import hit
from dscache.model import RETRIEVED, Artifact, Dataset
from dscache.pushing import push_new
from dscache.registry import manifest
from dscache.results import Fetched
from dscache.store import Blob, File
from dscache.store.locks import Lock
from dscache.store.trees import Tree
from dscache.transfer.delivery import Delivery, Limits
from dscache.transfer.space import check_space, space_needed
from dscache.transfer.wants import Delivered, Want, is_small
from dscache.unpack.rules import Limits as UnpackLimits
from dscache.wishes import Wish

Outcome = tuple[Wish, Fetched]

#: Wants that are leased with one write.
_TOGETHER = 1000


class Job(msgspec.Struct, eq=False):
    """A wish and how far it has come.

    Attributes:
        missing: artifacts that have not come yet; None where a manifest is still being read.
        fresh: some of the bytes were not in the store before.
        lock: held while small files are fetched.
    """

    wish: Wish
    files: list[File] = msgspec.field(default_factory=list)
    trees: list[tuple[Artifact, Tree]] = msgspec.field(default_factory=list)
    missing: int | None = None
    error: DscacheError | None = None
    downloaded: int = 0
    resumed: int = 0
    fresh: bool = False
    lock: Lock | None = None
    manifest: Blob | None = None

    @property
    def dataset(self) -> Dataset:
        """What is brought."""
        return self.wish.dataset

    def take(self, delivered: Delivered) -> None:
        """Note what came of one artifact."""
        self.downloaded += delivered.downloaded
        self.resumed += delivered.resumed
        if self.missing is not None:
            self.missing -= 1
        self.fresh |= delivered.is_new
        artifact, blob, tree = delivered.want.artifact, delivered.blob, delivered.tree
        if delivered.error:
            self.error = self.error or delivered.error
        elif tree:
            self.trees.append((artifact, tree))
        elif blob:
            self.files.append(File(artifact.path, blob.sha256, blob.size, blob.xxh3_128))

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        lock, self.lock = self.lock, None
        if lock:
            lock.release()


class Bringing:
    """Brings the datasets of one call into the store."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._store = call.store
        self._emit = call.emit
        self._lease = call.store.leases.new()
        self._claims = Claims(call)
        self._is_shared = False  # what has come is in the remote

    def run(self, wishes: Sequence[Wish]) -> Generator[Outcome, None, None]:
        """Yield each wish with its outcome as soon as it is complete or has failed."""
        jobs = [Job(wish) for wish in wishes]
        for job in jobs:
            self._tell(job.dataset)
        self._store.prepare()
        others: list[Job] = []
        try:
            for job in jobs:
                if not self._call.holds(job.dataset):
                    self._call.hold(job.dataset)
            self._bring_manifests([job for job in jobs if job.dataset.manifest])
            others = [job for job in jobs if not self._claim(job)]
            if ours := [job for job in jobs if job not in others]:
                yield from self._bring(ours)
            for job in others:
                yield from self._after_others(job)
        finally:
            for job in jobs:
                job.release()
                self._claims.release(job.wish, is_done=False)
            self._lease.release()

    def deliver(self, wants: Iterable[Want]) -> Generator[Delivered, None, None]:
        """Bring artifacts into the store and no more: there is no view of them, and no record."""
        self._store.prepare()
        try:
            yield from self._deliver(wants)
        finally:
            self._lease.release()

    def _tell(self, dataset: Dataset) -> None:
        if dataset.registry == RETRIEVED:  # its other contents are the same bytes, unpacked or not
            return
        name = str(dataset.reference)
        others = self._store.records.contents(dataset)
        if others and dataset.content[:8] not in others:
            self._emit(Notice(f"{name} has other content than before; both are kept, side by side"))

    def _bring_manifests(self, jobs: Sequence[Job]) -> None:
        """Bring the lists of the datasets that have one."""
        wants = [
            Want(number, job.dataset.manifest.file)
            for number, job in enumerate(jobs)
            if job.dataset.manifest
        ]
        if not wants:
            return
        with closing(self._deliver(wants)) as deliveries:
            for delivered in deliveries:
                job = jobs[delivered.want.fetch]
                job.downloaded += delivered.downloaded
                job.manifest, job.error = delivered.blob, delivered.error

    def _claim(self, job: Job) -> bool:
        """Take the lock for the small files of a job, and the team's claim; False if another
        process has one of them.
        """
        if job.manifest or any(is_small(each) for each in job.dataset.artifacts):
            job.lock = self._store.locks.attempt(_lock_key(job))
            if job.lock is None:
                return False
        if self._claims.attempt(job.wish):
            return True
        job.release()
        return False

    def _after_others(self, job: Job) -> Iterator[Outcome]:
        """Wait for the process that fetches the same; mostly nothing is left to do then."""
        name = str(job.dataset.reference)

        def on_wait(holder: str) -> None:
            self._emit(Waiting(name, holder))

        self._claims.wait(job.wish, on_wait)
        job.lock = self._store.locks.wait(_lock_key(job), on_wait)
        if found := hit(self._store, job.wish):
            job.release()  # before the next one is waited for
            yield job.wish, found
        else:
            yield from self._bring([job])

    def _bring(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Deliver every artifact; finish each job when its last one is here."""
        plans = [self._plan(job) for job in jobs]
        self._announce(jobs)
        unfinished = dict.fromkeys(jobs)
        with closing(self._deliver(_wants(plans))) as deliveries:
            for delivered in deliveries:
                job = jobs[delivered.want.fetch]
                job.take(delivered)
                self._keep_unannounced(delivered)
                if job.missing == 0:
                    del unfinished[job]
                    yield self._finish(job)
        for job in unfinished:
            yield self._finish(job)
        for job in jobs:
            is_done = job.fresh and job.error is None and self._is_shared
            self._claims.release(job.wish, is_done=is_done)

    def _deliver(self, wants: Iterable[Want]) -> Generator[Delivered, None, None]:
        """What comes of the wants. Once closed, it has let go of all parts and locks."""
        settings = self._call.settings
        limits = Limits(
            jobs=settings.jobs,
            rate=settings.limit_rate,
            max_unknown_size=settings.max_unknown_size,
            policy=self._call.policy,
            unpack=UnpackLimits(
                settings.unpack_max_members, settings.unpack_max_bytes, settings.unpack_max_ratio
            ),
            offline=settings.offline,
        )
        call = self._call
        delivery = Delivery(self._store, call.sources, limits, self._emit, call.layers, call.remote)
        shares = settings.push and call.remote
        new: list[tuple[Digest, Blob]] = []
        with closing(delivery.run(self._leased(wants))) as deliveries:
            for delivered in deliveries:
                identity = delivered.want.artifact.identity
                if shares and delivered.blob and delivered.is_from_origin and identity:
                    new.append((identity, delivered.blob))
                yield delivered
        self._is_shared = push_new(call, new)

    def _keep_unannounced(self, delivered: Delivered) -> None:
        """Keep from every prune what nobody knew the sha256 of until it came."""
        blob, identity = delivered.blob, delivered.want.artifact.identity
        if blob and (identity is None or identity.algorithm != "sha256"):
            with disk.storage_errors("the cache cannot be written"):
                self._lease.announce([Digest("sha256", blob.sha256)])
            self._call.let_pass([blob.sha256], delivered.want.artifact.path)

    def _leased(self, wants: Iterable[Want]) -> Iterator[Want]:
        """The same, each kept from every prune before it is looked for."""
        wants = iter(wants)
        while batch := list(islice(wants, _TOGETHER)):
            with disk.storage_errors("the cache cannot be written"):
                digests = [digest for each in batch for digest in each.artifact.digests]
                self._lease.announce(digests)
            self._call.let_pass(filter(None, map(self._store.blobs.known_as, digests)), "files")
            yield from batch

    def _plan(self, job: Job) -> Iterable[Artifact]:
        """The artifacts that are asked for; a manifest's are read as they are needed."""
        dataset, wish = job.dataset, job.wish
        if dataset.manifest:
            if job.manifest is None:
                return ()
            local = dataset.base.startswith("file:")
            listed = manifest.read(job.manifest.path, dataset.manifest, local=local)
            return (each for each in listed if wish.wants(each.path))
        chosen = list(wish.needed())
        job.missing = len(chosen)
        return chosen

    def _announce(self, jobs: Sequence[Job]) -> None:
        chosen = [each for job in jobs for each in job.wish.needed()]
        self._emit(Planned(len(chosen), sum(each.size or 0 for each in chosen)))
        check_space(self._store, space_needed(self._store, chosen))

    def _finish(self, job: Job) -> Outcome:
        """View and record of a job whose artifacts have all come, or its error."""
        try:
            found = self._record(job) if job.error is None else _failed(job, job.error)
        except DscacheError as error:
            found = _failed(job, error)
        finally:
            job.release()
        return job.wish, replace(found, bytes_downloaded=job.downloaded, bytes_resumed=job.resumed)

    def _record(self, job: Job) -> Fetched:
        status = "downloaded" if job.fresh else "linked"
        with disk.storage_errors(f"{job.dataset.name} cannot be put together"):
            trees = [
                recording.unpacked(self._store, job.wish, artifact, tree)
                for artifact, tree in job.trees
            ]
            came = recording.Came(job.files, trees, (job.manifest.sha256,) if job.manifest else ())
            return recording.record(self._store, job.wish, came, status)


def _wants(plans: Sequence[Iterable[Artifact]]) -> Iterator[Want]:
    for number, artifacts in enumerate(plans):
        yield from (Want(number, artifact) for artifact in artifacts)


def _failed(job: Job, error: DscacheError) -> Fetched:
    if isinstance(error, ManualDownload):
        error.hint = f"afterwards run `dscache import {job.dataset.name} FILE`"
    return job.wish.failed(error)


def _lock_key(job: Job) -> str:
    return f"fetch-{job.dataset.content[:32]}"
