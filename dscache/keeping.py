"""Keeping: the verbs that look after a cache folder. `Cache` has them beside those that fetch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from dscache import settings
from dscache.call import Call, folder_of
from dscache.events import Emit, to_log
from dscache.results import Cached, Plan, Usage, Verified
from dscache.settings import Settings

StrPath = str | os.PathLike[str]


class Keeping:
    """A cache folder, its settings, and what keeps it in order."""

    def __init__(self, root: StrPath | None = None, *, settings: Settings | None = None) -> None:
        self._root = None if root is None else folder_of(root)
        self._settings = settings

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"

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

    def plan_prune(self, names: Iterable[str] = (), *, archives: bool = False) -> Plan:
        """What `prune` would remove.

        Args:
            names: only of these datasets, in all versions where none is named; default: of all.
            archives: the archives of datasets that are unpacked, which nothing reads any more.

        Raises:
            NotCached: nothing of that name is in the cache.
            StorageError: a record cannot be read, which might name what is to go.
        """
        from dscache import catalog, pruning

        with self._open() as call:
            return pruning.plan(call.store, catalog.recorded(call, names), archives=archives)

    def prune(self, plan: Plan) -> Plan:
        """Remove what was planned; say what was done.

        What another process has taken up meanwhile is kept.

        Raises:
            StorageError: the disk does not let it be removed.
        """
        from dscache import pruning

        with self._open() as call:
            return pruning.execute(call.store, plan)

    def verify(self, names: Iterable[str] = (), *, full: bool = False) -> Verified:
        """Read what the cache holds, and compare it with what was stored.

        Args:
            names: only these datasets, in all versions where none is named; default: all.
            full: compute the sha256 of every file; default: its xxh3_128, which no accident
                passes, at the speed of the disk.

        Raises:
            NotCached: nothing of that name is in the cache.
            StorageError: the disk does not let it be read.
        """
        from dscache import catalog, verifying

        with self._open() as call:
            return verifying.verify(call.store, catalog.recorded(call, names), full=full)

    def usage(self) -> Usage:
        """What the cache takes on the disk, by dataset."""
        from dscache import catalog

        with self._open() as call:
            return catalog.usage(call)

    def _open(self, progress: Emit | None = None, **arguments: Any) -> Call:
        """A call with the settings in force now; arguments that are not None go before them."""
        return Call(self.settings.override(**arguments), progress or to_log)
