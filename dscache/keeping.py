"""Keeping: the verbs that look after a cache folder. `Cache` has them beside those that fetch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager

from dscache import settings
from dscache.call import Call, begun, folder_of, watching
from dscache.errors import DscacheError, UsageError
from dscache.events import Progress
from dscache.model import Reference
from dscache.quantities import parse_duration, parse_size
from dscache.results import (
    Cached,
    Diagnosis,
    Plan,
    Publication,
    Pushed,
    RemotePruned,
    RemoteStatus,
    Usage,
    Verified,
)
from dscache.settings import Settings

#: What `Keeping.usage` can group by.
USAGE_BY = ("dataset", "registry", "project", "age")
StrPath = str | os.PathLike[str]


class Keeping:
    """A cache folder, its settings, and what keeps it in order."""

    def __init__(self, root: StrPath | None = None, *, settings: Settings | None = None) -> None:
        self._root = None if root is None else folder_of(root)
        self._settings = settings

    def __repr__(self) -> str:
        try:
            return f"{type(self).__name__}({self.root!r})"
        except DscacheError as error:  # who looks at a value asks for no error
            return f"{type(self).__name__}(<{error}>)"

    def _repr_html_(self) -> str:
        from dscache import catalog
        from dscache.sheets import Sheet

        try:
            with self._open() as call:
                return catalog.outline(call).html()
        except (DscacheError, OSError) as error:
            return Sheet(repr(self), (("cannot be read", str(error)),)).html()

    @property
    def root(self) -> str:
        """The cache folder."""
        return self.settings.cache_dir

    @property
    def settings(self) -> Settings:
        """The settings in force now."""
        found = self._settings or settings.load()
        return found if self._root is None else found.override(cache_dir=self._root)

    def cached(self) -> list[Cached]:
        """The datasets in the cache, by registry and name."""
        from dscache import catalog

        with self._open() as call:
            return catalog.cached(call)

    def names(self, *, pinned: bool = False) -> list[str]:
        """The full names, `registry/name@version`, of what is in the cache, or pinned in it.

        As quick as looking into folders, however large the cache is: nothing is read.
        """
        from dscache import catalog

        with self._open() as call:
            return [str(each) for each in catalog.names(call.store, pinned=pinned)]

    def plan_prune(
        self,
        names: Iterable[str] = (),
        *,
        older_than: str | float | None = None,
        max_size: str | float | None = None,
        free: str | float | None = None,
        archives: bool = False,
        all: bool = False,  # noqa: A002 - as the option is called
    ) -> Plan:
        """What `prune` would remove. Policies add up; without any, garbage alone.

        Args:
            names: only of these datasets, in all versions where none is named, and no garbage;
                without a policy, they are what goes.
            older_than: datasets not used for so long: `"30d"`, or seconds.
            max_size: the least recently used, until the cache has so many bytes: `"100GB"`;
                where nothing else is asked for, the setting counts.
            free: the least recently used, until the disk has so many bytes free.
            archives: the archives of datasets that are unpacked, which nothing reads any more.
            all: every dataset.

        Raises:
            UsageError: a name, size or time is malformed.
            NotCached: nothing of that name is in the cache.
            StorageError: the cache cannot be read.
        """
        from dscache import pruning

        references = [Reference.parse(name) for name in names]
        with self._open() as call:
            policy = pruning.Policy(
                older_than=None if older_than is None else parse_duration(older_than),
                max_size=None if max_size is None else parse_size(max_size),
                free=None if free is None else parse_size(free),
                archives=archives,
                all=all,
            )
            if policy.is_empty and not references and call.settings.max_size:
                policy = pruning.Policy(max_size=call.settings.max_size)
            return pruning.plan(call.store, references, policy, pruning.Limits.of(call.settings))

    def prune(self, plan: Plan) -> Plan:
        """Remove what was planned; say what was done.

        What is needed by now is kept.

        Raises:
            StorageError: the cache cannot be written.
        """
        from dscache import pruning

        with self._open() as call:
            return pruning.execute(call.store, plan, pruning.Limits.of(call.settings))

    def pin(self, name: str) -> Cached:
        """Keep a dataset from every prune until it is unpinned.

        Args:
            name: `[registry/]name[@version]`; without a version the current one.

        Raises:
            NotCached: it is not in the cache.
        """
        from dscache import pinning

        with self._open() as call:
            return pinning.pin(call, Reference.parse(name))

    def unpin(self, name: str) -> Cached:
        """Let a dataset go with the next prune that wants it; raises as `pin`."""
        from dscache import pinning

        with self._open() as call:
            return pinning.unpin(call, Reference.parse(name))

    def verify(
        self,
        names: Iterable[str] = (),
        *,
        full: bool = False,
        repair: bool = False,
        limit_rate: str | int = 0,
        progress: Progress | None = None,
    ) -> Verified:
        """Read what the cache holds, and compare it with what was stored, on all cores.

        One that was interrupted goes on where it was, if it is asked for again within a day.

        Args:
            names: only these datasets, in all versions where none is named; default: all, and
                what no dataset names.
            full: compute the sha256 of every file that has one; default: its xxh3_128, which no
                accident passes, at the speed of the disk.
            repair: bring damaged files again, and mend what was made of them. What was damaged
                is kept in `quarantine/`.
            limit_rate: bytes that are read in a second, as `"200MB"`; 0 for no limit.
            progress: True shows it, in a notebook or on a terminal (`dscache.bars`); a function is
                called with each event of `dscache.events`; default: notices are logged.

        Raises:
            NotCached: nothing of that name is in the cache.
            UsageError: a name or rate is malformed.
            StorageError: the disk does not let it be read, or written where it is to be repaired.
        """
        from dscache import verifying

        question = verifying.Question(tuple(names), full, repair, parse_size(limit_rate))
        with self._open(progress) as call, call.store.leases.new() as call.lease:
            return verifying.verify(call, question)

    def usage(self, by: str = "dataset") -> Usage:
        """What the cache takes on the disk, by dataset.

        Args:
            by: "registry", "project" or "age" makes groups as well.

        Raises:
            UsageError: there is no such grouping.
            StorageError: the cache cannot be read.
        """
        from dscache import usage

        if by not in USAGE_BY:
            raise UsageError(f"{by!r} is none of {', '.join(USAGE_BY)}")
        with self._open() as call:
            return usage.usage(call, by)

    def diagnose(self, *, peer: bool = False, progress: Progress | None = None) -> Diagnosis:
        """Look at the cache folder, its filesystem, the configuration and the registries.

        Raises nothing for what is wrong: that stands in the result. A cache folder that is not
        there is made, as a fetch would make it.

        Args:
            peer: wait for another host that has the same folder and does the same (some minutes),
                and find out whether locks exclude between the two.
            progress: called with notices; default: they are logged.
        """
        from dscache import doctor
        from dscache.settings import salvaged

        found, problems = (self._settings, []) if self._settings else salvaged()
        if self._root is not None:
            found = found.override(cache_dir=self._root)
        with watching(progress) as emit:
            return doctor.diagnose(found, problems, peer=peer, emit=emit)

    def remote_status(self, *, progress: Progress | None = None) -> RemoteStatus:
        """Whether the remote answers, and takes files.

        Raises:
            UsageError: none is configured.
        """
        from dscache import remotes

        with self._open(progress) as call:
            return remotes.status(call)

    def push(self, names: Iterable[str], *, progress: Progress | None = None) -> Pushed:
        """Write cached datasets to the remote, in all cached versions where none is named.

        Raises:
            UsageError: a name is malformed, or there is no remote to write to.
            NotCached: one is not in the cache.
            IntegrityError: a file of the cache is damaged.
            TransferError: the remote cannot be reached, or refuses.
        """
        from dscache import remotes

        references = [Reference.parse(name) for name in names]
        with self._open(progress) as call:
            return remotes.push(call, references)

    def prune_remote(self, older_than: str | float, *, dry_run: bool = False) -> RemotePruned:
        """Remove from the remote what was written to it so long ago: `"90d"`, or seconds.

        Raises:
            UsageError: the time is malformed, or there is no remote to write to.
            TransferError: the remote cannot be reached, or refuses.
        """
        from dscache import remotes

        with self._open() as call:
            return remotes.prune(call, parse_duration(older_than), dry_run=dry_run)

    def publish(
        self,
        folder: StrPath,
        to: str,
        *,
        with_blobs: bool = False,
        dry_run: bool = False,
        keys: str = "",
        progress: Progress | None = None,
    ) -> Publication:
        """Publish a registry: put what is new in a folder where its readers find it.

        Bytes are put first, then what names them, so that readers never find half of it. One that
        was interrupted is finished by the next. Nothing is ever removed.

        Args:
            folder: the author's registry.
            to: a folder, or a URL with `s3://`, `gs://` or `az://`.
            with_blobs: also put there what the entries have at URLs; it is fetched if need be.
            dry_run: only say what would be done.
            keys: where the private keys of a signed registry are: a folder, or `keyring:`; default:
                as configured.
            progress: True shows it, in a notebook or on a terminal (`dscache.bars`); a function is
                called with each event of `dscache.events`; default: notices are logged.

        Raises:
            NotFound: there is no such folder.
            UsageError: nothing can be put at such a destination, or a key to sign with is missing.
            InvalidFile: the registry has errors; or what is there is another one, or malformed.
            UnsafeError: an entry names a file of this machine.
            IntegrityError: other content is published under a version, or bytes are not what their
                entry says. Before anything is put there, what is published already is compared.
            TransferError: the destination cannot be reached or refuses; bytes cannot be fetched; or
                a dataset's current version there is one that the folder does not have.
            StorageError: a file cannot be read.
        """
        from dscache import publishing

        with self._open(progress) as call:
            return publishing.publish(
                call, folder_of(folder), to, with_blobs=with_blobs, dry_run=dry_run, keys=keys
            )

    def _open(self, progress: Progress | None = None) -> AbstractContextManager[Call]:
        """A call with the settings in force now."""
        return begun(self.settings, progress)
