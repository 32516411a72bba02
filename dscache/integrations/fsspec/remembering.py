"""Remembering: what names meant when they were first asked for.

Knows nothing of fsspec; paths are those of `dscache://`, without the protocol.
"""

from __future__ import annotations

import os
import time

import msgspec

from dscache import Cache
from dscache.integrations.fsspec.known import Known


class Place(msgspec.Struct, frozen=True):
    """Where a path leads: a dataset, "" above the datasets, and a path in it."""

    dataset: str = ""
    rest: str = ""


class Memory:
    """The registries and datasets that were asked for, with certain settings, in one process."""

    def __init__(self, cache: Cache, settings: object) -> None:
        self._cache = cache
        self._settings = settings
        self._pid, self._since = os.getpid(), time.monotonic()
        self._datasets: dict[str, Known] = {}
        self._registries: dict[str, bool] = {}

    def holds(self, settings: object, seconds: float) -> bool:
        """True if it holds for so many seconds: with other settings names mean something else, and
        a child process keeps nothing of its parent's from a prune.
        """
        is_young = time.monotonic() - self._since < seconds
        return is_young and self._pid == os.getpid() and self._settings == settings

    def place(self, path: str) -> Place:
        """Take a path apart. A first part that names a registry in use is one.

        Raises:
            FileNotFoundError: no dataset can have such a path.
        """
        parts = path.strip("/").split("/")
        if parts == [""]:
            return Place()
        if "\\" in path or not {"", ".", ".."}.isdisjoint(parts):
            raise FileNotFoundError(f"{path!r} is no path of a dataset")
        if not self._is_registry(parts[0]):
            return Place(parts[0], "/".join(parts[1:]))
        return Place("/".join(parts[:2]) if parts[1:] else "", "/".join(parts[2:]))

    def known(self, dataset: str) -> Known:
        """The dataset of a place; raises as `Known`."""
        if dataset not in self._datasets:
            self._datasets[dataset] = Known(self._cache, dataset)
        return self._datasets[dataset]

    def _is_registry(self, name: str) -> bool:
        if name not in self._registries:
            self._registries[name] = self._cache.has_registry(name)
        return self._registries[name]
