"""Known datasets: one version as it was found when it was first asked for, and where it stands.

What is known stays, so that what is opened one after the other belongs together. Knows nothing of
fsspec; paths are relative to the dataset.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from dscache import Cache
from dscache.errors import NotCached, NotFound
from dscache.integrations.fsspec.outline import Outline

Kind = Literal["file", "directory"]


class Known:
    """One version of a dataset.

    Attributes:
        reference: its full name, which never means another version.

    Raises:
        NotFound: no registry in use has it.
        NotCached: this is offline mode, and nobody here knows what it holds.
    """

    def __init__(self, cache: Cache, name: str) -> None:
        self._cache = cache
        self._folder = ""
        self._archives: dict[str, int | None] = {}
        try:
            listing = cache.files(name)
        except NotCached:
            self._from_registry(name)
            return
        self.reference = f"{listing.registry}/{listing.name}@{listing.version}"
        self._outline = Outline((each.path, each.size) for each in listing.files)
        if listing.folder is not None:
            self._folder = os.fspath(listing.folder)

    def _from_registry(self, name: str) -> None:
        """Take what the registry says of a dataset with archives that are not unpacked here."""
        dataset = self._cache.info(name).dataset
        if dataset.manifest:
            raise NotCached(
                f"the list of the files of {dataset.reference} is not in the cache",
                hint="it comes with the first file that is opened online",
                name=name,
            )
        files: list[tuple[str, int | None]] = []
        closed: list[str] = []
        for each in dataset.artifacts:
            if not each.unpack:
                files.append((each.path, each.size))
            elif each.single is not None:
                files.append((each.single, None))
            else:
                closed.append(each.unpack_to)
                self._archives[each.path] = each.size
        self.reference = str(dataset.reference)
        self._outline = Outline(files, closed)

    @cached_property
    def content(self) -> str:
        """What tells its content from that of all others."""
        return self._cache.info(self.reference).dataset.content

    def look(self, path: str) -> tuple[Kind, int | None] | None:
        """What stands at a path, with its size; None if nothing does.

        Brings an archive if nobody knows otherwise. A size that only a download tells is None.
        """
        found = self._told(path)
        if found is None and self._outline.is_closed(path):
            self._open(path)
            found = self._told(path)
        return found or self._seen(path)

    def look_into(self, folder: str) -> list[tuple[str, tuple[Kind, int | None]]]:
        """What stands in a folder, by name; brings archives that nobody knows the members of."""
        if self._outline.is_closed(folder):
            self._open(folder)
        if self._outline.is_folder(folder):
            names = self._outline.names(folder)
        else:
            names = sorted(os.listdir(f"{self._folder}/{folder}"))  # a link to a folder
        start = f"{folder}/" if folder else ""
        looks = ((name, self.look(f"{start}{name}")) for name in names)
        return [(name, found) for name, found in looks if found]

    def local(self, path: str) -> str:
        """Where a file stands on this machine; it is brought if need be.

        Raises:
            NotFound: there is no such file.
            IsADirectoryError: it is a folder.
        """
        there = f"{self._folder}/{path}"
        if self._folder and os.path.isfile(there):
            return there
        if self._outline.is_folder(path) or (self._folder and os.path.isdir(there)):
            raise IsADirectoryError(f"{path or self.reference} is a folder")
        self._fetch(path, glob.escape(path))
        there = f"{self._folder}/{path}"
        if path in self._outline.sizes:
            self._outline.sizes[path] = os.stat(there).st_size
        return there

    def bring(self, paths: Sequence[str]) -> None:
        """Bring several files at once, as far as they are not here."""
        missing = [each for each in paths if not os.path.isfile(f"{self._folder}/{each}")]
        if len(missing) > 1:  # one comes when it is opened
            self._fetch("", *map(glob.escape, missing))

    def _told(self, path: str) -> tuple[Kind, int | None] | None:
        if path in self._outline.sizes:
            return "file", self._outline.sizes[path]
        if self._outline.is_folder(path):
            return "directory", 0
        return ("file", self._archives[path]) if path in self._archives else None

    def _seen(self, path: str) -> tuple[Kind, int | None] | None:
        """What no list names: links to folders, and what stands below."""
        there = f"{self._folder}/{path}"
        if not self._folder or not os.path.exists(there):
            return None
        is_folder = os.path.isdir(there)
        return ("directory", 0) if is_folder else ("file", os.stat(there).st_size)

    def _open(self, path: str) -> None:
        """Find out what archives hold at a path and below."""
        patterns = [glob.escape(path), f"{glob.escape(path)}/*"] if path else []
        try:
            self._fetch("", *patterns)
            listing = self._cache.files(self.reference, files=patterns or None)
        except NotCached:
            raise
        except NotFound:
            pass
        else:
            self._outline.add((each.path, each.size) for each in listing.files)
        self._outline.open(path)

    def _fetch(self, path: str, *patterns: str) -> None:
        """Fetch what matches; `path` is the only file that does, if it is known."""
        found = os.fspath(self._cache.fetch(self.reference, files=patterns or None))
        if os.path.isdir(found):
            self._folder = found
        elif path:
            self._folder = found[: -len(path) - 1]
