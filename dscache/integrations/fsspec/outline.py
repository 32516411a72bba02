"""Outlines: the files of a dataset as far as they are known, seen as folders. Pure.

What an archive holds nobody knows before it is unpacked: of such only the folder is known in which
its members will stand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Outline:
    """Files with their sizes, and the folders that they make.

    Args:
        files: path and size of each; the size is None where nobody knows it yet.
        closed: the folders, "" for the root, in which members of unopened archives will stand.
    """

    def __init__(
        self, files: Iterable[tuple[str, int | None]], closed: Collection[str] = ()
    ) -> None:
        self.sizes: dict[str, int | None] = {}
        self._folders: dict[str, dict[str, None]] = {"": {}}
        self._closed = set(closed)
        self._opened: set[str] = set()
        self.add(files)
        for folder in self._closed:
            self._add_folder(folder)

    def add(self, files: Iterable[tuple[str, int | None]]) -> None:
        """Take in files that are known by now."""
        for path, size in files:
            self.sizes[path] = size
            folder, _, name = path.rpartition("/")
            self._add_folder(folder)
            self._folders[folder][name] = None

    def is_folder(self, path: str) -> bool:
        """True if files are known to stand below, or will."""
        return path in self._folders

    def names(self, folder: str) -> list[str]:
        """What stands in a folder, sorted."""
        return sorted(self._folders[folder])

    def is_closed(self, path: str) -> bool:
        """True if an archive that nobody has looked into may have members at a path or below."""
        if any(_covers(each, path) for each in self._opened):
            return False
        return any(_covers(each, path) for each in self._closed)

    def open(self, path: str) -> None:
        """What archives hold at a path and below is known from now on."""
        self._opened.add(path)

    def _add_folder(self, folder: str) -> None:
        if folder not in self._folders:
            self._folders[folder] = {}
            above, _, name = folder.rpartition("/")
            self._add_folder(above)
            self._folders[above][name] = None


def _covers(folder: str, path: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")
