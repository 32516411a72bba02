"""A call: what one verb needs while it runs, made for it and ended with it.

Settings, store, sources and look-up belong together for one call only, so that no handle, loop or
thread outlives it: a fork or a notebook's event loop never meets one.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

from dscache.errors import StorageError, UsageError
from dscache.events import Emit, Notice, Progress, Waiting, to_log
from dscache.filesystem import READ_ONLY
from dscache.model import Dataset, Reference
from dscache.registry.lookup import Lookup, Project
from dscache.registry.places import Folder, Place, Prefix
from dscache.settings import Settings
from dscache.store import Record, Store

if TYPE_CHECKING:
    from dscache.signing.reading import Means
    from dscache.sources.dispatch import Sources
    from dscache.sources.retry import Policy
    from dscache.sources.small import Answer
    from dscache.store.leases import Lease
    from dscache.transfer.remote import Remote


class Call:
    """The parts of one call. Use it as a context manager."""

    def __init__(self, settings: Settings, emit: Emit) -> None:
        self.settings = settings
        self.emit = emit
        self.store = Store(
            settings.cache_dir,
            durability=settings.durability,
            lock_timeout=settings.lock_timeout,
            emit=emit,
        )
        #: Keeps what the call gives out; by default as long as the process lives.
        self.lease: Lease = self.store.leases.of_process()
        #: Datasets, by mark, that a root keeps: they need no lease.
        self.rooted: Container[str] = ()
        self.lookup = Lookup(settings, self.open_place, emit, _followed(settings, emit))

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if "sources" in self.__dict__:
            self.sources.close()

    def find(self, name: str) -> Dataset:
        """The dataset that a user means; raises as `Reference.parse` and `Lookup.find`."""
        return self.lookup.find(Reference.parse(name))

    def holds(self, dataset: Dataset | Record) -> bool:
        """True if no prune takes a dataset, as long as the lease of this call lasts."""
        return dataset.mark in self.rooted or self.lease.has(dataset.mark)

    def hold(self, dataset: Dataset | Record) -> None:
        """Keep a dataset from every prune; once this returns, none that began before goes on."""
        mark = dataset.mark
        try:
            self.lease.add(mark)
            self.let_pass([mark], str(dataset.reference))
            self.lease.confirm(mark)
        except StorageError:  # a removal that does not end; it is an OSError too
            raise
        except OSError as error:
            if error.errno not in READ_ONLY:  # who may not write to a cache does not prune it
                reason = os.strerror(error.errno or 0)
                self.emit(Notice(f"{dataset.name} is not kept from a prune: {reason}"))

    def let_pass(self, what: Iterable[str], name: str) -> None:
        """Wait for prunes that are just removing any of these (marks, or sha256 of blobs)."""
        self.store.removals.wait(what, lambda holder: self.emit(Waiting(name, holder)))

    @cached_property
    def sources(self) -> Sources:
        """What serves URLs; made on first use, since a hit needs none."""
        from dscache.sources.dispatch import Sources

        return Sources(self.settings, self.store.layout.parts, self.emit)

    @cached_property
    def layers(self) -> list[Store]:
        """The caches of others that are looked into before one's own, in their order."""
        found: list[Store] = []
        for folder in map(folder_of, self.settings.read_from):
            try:
                layer = Store(folder, read_only=True)
                if not os.path.exists(layer.layout.version):
                    raise StorageError("there is no cache in it")
            except StorageError as error:
                self._tell_left_out(folder, error)
            else:
                if os.path.realpath(folder) != os.path.realpath(self.settings.cache_dir):
                    found.append(layer)
        return found

    def leave_out(self, layer: Store, error: StorageError) -> None:
        """Look into a layer no more, since it cannot be read."""
        self.layers.remove(layer)
        self._tell_left_out(layer.layout.root, error)

    def _tell_left_out(self, folder: str, error: StorageError) -> None:
        self.emit(Notice(f"{folder} (`read_from`) is left out: {error}"))

    @cached_property
    def remote(self) -> Remote | None:
        """The store that a team shares, which is asked before the sources of the registry."""
        from dscache.sources.buckets import is_bucket, open_bucket  # late: a hit asks nobody
        from dscache.transfer.remote import Remote

        address = self.settings.remote
        try:
            if is_bucket(address):
                open_bucket(address)
        except UsageError as error:
            self.emit(Notice(f"the remote {address} is left out: {error} ({error.hint})"))
            return None
        return Remote(address, self.emit) if address else None

    @property
    def policy(self) -> Policy:
        """How often and how long to try again."""
        from dscache.sources.retry import policy_of

        return policy_of(self.settings)

    def open_place(self, address: str) -> Place:
        """The registry files at an address: a folder, a `file:` URL or an http(s) prefix.

        Where the user has pinned a root for the address, only what is signed.

        Raises:
            UsageError: no registry can be at such an address.
            IntegrityError: the root that is pinned for it cannot be read.
        """
        if self.settings.roots:
            from dscache.signing import pins, reading

            if root := pins.pinned(self.settings, address):
                return reading.open_signed(address, root, self.means)
        scheme, separator, _ = address.partition("://")
        if not separator:
            return Folder(address)
        if scheme == "file":
            from dscache.sources.file import path_of

            return Folder(path_of(address))
        from dscache.sources.buckets import is_bucket

        if scheme not in ("http", "https") and not is_bucket(address):
            raise UsageError(
                f"{address!r} cannot be a registry",
                hint="a folder, or a URL with https://, http://, s3://, gs:// or az://, can be one",
            )
        return Prefix(
            address,
            self._read,
            self.store.layout.registry(address),
            max_age=self.settings.registry_max_age,
            offline=self.settings.offline,
            emit=self.emit,
        )

    @property
    def means(self) -> Means:
        """What signed registries are read with."""
        from dscache.signing.reading import Means

        def read(url: str, limit: int) -> Answer:
            return self._read(url, "", limit)

        return Means(read, self.store, self.settings, self.emit)

    def _read(self, url: str, known: str, limit: int) -> Answer:
        from dscache.sources.small import read_small

        return read_small(self.sources, url, limit=limit, policy=self.policy, known=known)


@contextmanager
def begun(settings: Settings, progress: Progress | None) -> Iterator[Call]:
    """A call, with what takes its events."""
    with watching(progress) as emit, Call(settings, emit) as call:
        yield call


def watching(progress: Progress | None) -> AbstractContextManager[Emit]:
    """What takes the events of a call, for what its caller said of progress."""
    if progress is True:
        from dscache.progress import bars  # late: a program that wants none need not load it

        return bars()
    return nullcontext(progress or to_log)


def _followed(settings: Settings, emit: Emit) -> Project | None:
    if settings.project is None:
        return None
    from dscache.project.following import Following  # late: many calls are made in no project

    return Following(settings, emit)


def folder_of(path: str | os.PathLike[str]) -> str:
    """An absolute path for what a user wrote."""
    return os.path.abspath(os.path.expanduser(os.fspath(path)))
