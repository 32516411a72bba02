"""Names: datasets as an fsspec filesystem, `dscache://[registry/]name[@version]/path`."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dscache import Cache
from dscache.errors import DscacheError, UsageError
from dscache.integrations.fsspec.chained import ThroughCache
from dscache.integrations.fsspec.reading import ReadOnlyFiles, translated
from dscache.integrations.fsspec.remembering import Memory

Info = dict[str, Any]


class DscacheFileSystem(ReadOnlyFiles):
    """The datasets that are on offer, each a folder; their files come when they are opened.

    The root lists the datasets that have a name of their own there, a registry lists all of its
    datasets. A first part that names a registry in use is one. Listings download no data, but for
    archives whose members nobody knows yet. What a name means is asked once in `registry_max_age`
    of the settings, and by `invalidate_cache`.

    With a target, as fsspec makes of `dscache::https://…`, this gives a `ThroughCache`.

    Args:
        cache_dir: the cache folder; default: as configured.
    """

    def __new__(cls, *_arguments: Any, **options: Any) -> Any:
        if options.get("target_protocol") or options.get("fs"):
            options.pop("fo", None)
            return ThroughCache(**options)
        return super().__new__(cls)

    def __init__(self, cache_dir: str | None = None, **options: Any) -> None:
        if self._cached:
            return
        super().__init__(**options)
        self._cache = Cache(cache_dir)
        self._memory: Memory | None = None

    def info(self, path: str, **_options: Any) -> Info:
        """Name, size and type; a size that only a download tells is found out."""
        found = self._look(path)
        if found["size"] is None:
            found["size"] = os.stat(self.local(path)).st_size
        return found

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        """What stands in a folder; sizes that only a download tells are None."""
        entry = self._look(path)
        found = [entry] if entry["type"] == "file" else self._children(entry["name"])
        return found if detail else [each["name"] for each in found]

    def exists(self, path: str, **_options: Any) -> bool:
        """True if something stands there; what cannot be known now raises."""
        return self._type(path) is not None

    def isfile(self, path: str) -> bool:
        """True for a file; what cannot be known now raises."""
        return self._type(path) == "file"

    def isdir(self, path: str) -> bool:
        """True for a registry, a dataset, or a folder of one; what cannot be known now raises."""
        return self._type(path) == "directory"

    def ukey(self, path: str) -> str:
        """What changes if the content of the file does; nothing is downloaded for it."""
        found = self._look(path)
        memory = self._remembered()
        place = memory.place(found["name"])
        told = str(found)
        if place.dataset:
            with translated(path):
                told = f"{memory.known(place.dataset).content}/{place.rest}"
        return hashlib.sha256(told.encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """As `ukey`, as a number."""
        return int(self.ukey(path), 16)

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: str | Callable[[OSError], object] = "omit",
        **options: Any,
    ) -> Iterator[Any]:
        """As `os.walk`, in a dataset; above that, one level.

        Raises:
            UsageError: it would go into every dataset, and bring their archives.
        """
        place = self._remembered().place(self._strip_protocol(path))
        if not place.dataset and maxdepth != 1:
            raise UsageError(
                f"{path or 'dscache://'} would be searched through all of its datasets",
                hint="name one of them, or search one level (`maxdepth=1`)",
            )
        told = _only_missing if on_error == "omit" else on_error
        yield from super().walk(path, maxdepth, topdown, told, **options)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Ask the registries anew for what names mean."""
        self._memory = None
        super().invalidate_cache(path)

    def local(self, path: str) -> str:
        """Where the file stands on this machine; it is brought if need be."""
        memory = self._remembered()
        place = memory.place(self._strip_protocol(path))
        if not place.dataset:
            raise IsADirectoryError(errno.EISDIR, "this is a folder of datasets", path)
        with translated(path):
            return memory.known(place.dataset).local(place.rest)

    def bring(self, paths: Sequence[str]) -> None:
        """Bring several files at once, as far as they are not here."""
        memory = self._remembered()
        wanted: dict[str, list[str]] = {}
        for path in paths:
            place = memory.place(self._strip_protocol(path))
            wanted.setdefault(place.dataset, []).append(place.rest)
        for dataset, rests in wanted.items():
            with translated(dataset):
                memory.known(dataset).bring(rests)

    def _type(self, path: str) -> str | None:
        try:
            return str(self._look(path)["type"])
        except (FileNotFoundError, UsageError):  # nothing has a name that is malformed
            return None

    def _look(self, path: str) -> Info:
        """What stands at a path, without a download if there is a way."""
        path = self._strip_protocol(path).strip("/")
        memory = self._remembered()
        place = memory.place(path)
        found: tuple[str, int | None] | None = ("directory", 0)
        if place.dataset:
            with translated(path):
                found = memory.known(place.dataset).look(place.rest)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, f"{place.dataset} has no such file", path)
        return _entry(path, found)

    def _children(self, path: str) -> list[Info]:
        memory = self._remembered()
        place = memory.place(path)
        if place.dataset:
            with translated(path):
                names = memory.known(place.dataset).look_into(place.rest)
            return [_entry(f"{path}/{name}", found) for name, found in names]
        rows = self._cache.available()
        if path:
            names_here = {f"{path}/{row.name}" for row in rows if row.registry == path}
        else:
            taken = {each.name for each in self._cache.registries()}
            names_here = {row.name for row in rows} - taken
        return [_entry(name, ("directory", 0)) for name in sorted(names_here)]

    def _remembered(self) -> Memory:
        """What was asked before, as long as it holds."""
        found, settings = self._memory, self._cache.settings
        if found is None or not found.holds(settings, settings.registry_max_age):
            found = self._memory = Memory(self._cache, settings)
        return found


def _entry(path: str, found: tuple[str, int | None]) -> Info:
    return {"name": path, "size": found[1], "type": found[0]}


def _only_missing(error: OSError) -> None:
    """What is not there is left out of a walk, as everywhere; what cannot be had is not."""
    if isinstance(error, DscacheError):
        raise error
