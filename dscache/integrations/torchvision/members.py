"""Members: the md5 of what archives hold, once for each process, and on all cores.

A dataset that compares the members of an archive compares all of them, one after the other, each
time it is made. So with the first of a folder the others are hashed as well. What is remembered is
the md5 of a file of the cache, which nobody changes; that a file is a link to it is seen each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: In a folder of more files nobody compares each: they are samples.
_MOST = 64

Identity = tuple[int, ...]


def identity_of(path: str | os.PathLike[str]) -> Identity:
    """Which file it is, and in which state."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Members:
    """What was unpacked into folders of projects; `md5_of` hashes one file."""

    def __init__(self, md5_of: Callable[[Path], str]) -> None:
        self._md5_of = md5_of
        self._views: dict[Path, list[Path]] = {}
        self._known: dict[Identity, str] = {}

    def add(self, folder: Path, view: Path) -> None:
        """All that stands below `view`, a folder of the cache, was linked into `folder`."""
        views = self._views.setdefault(folder.absolute(), [])
        if view not in views:
            views.append(view)

    def md5(self, path: Path) -> str | None:
        """The md5 of a member; None for everything else."""
        source = self._source(path.absolute())
        if source is None:
            return None
        identity = identity_of(source)
        if identity not in self._known:
            self._hash(source)
        return self._known.get(identity)

    def _source(self, path: Path) -> Path | None:
        """The file of the cache that the path leads to."""
        for folder in path.parents:
            for view in self._views.get(folder, ()):
                source = view / path.relative_to(folder)
                if source.exists() and path.exists() and source.samefile(path):
                    return source
        return None

    def _hash(self, source: Path) -> None:
        files = [each for each in source.parent.iterdir() if each.is_file()]
        if len(files) > _MOST:
            files = [source]
        identities = [identity_of(each) for each in files]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._known |= zip(identities, pool.map(self._md5_of, files), strict=True)
