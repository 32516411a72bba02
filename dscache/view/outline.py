"""Outlines: the folders that a view needs, found before anything is made.

Folders and symbolic links are remembered here, files never: there may be millions of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dscache.errors import UnsafeError
from dscache.view.items import Item

_LISTED = 20


def folders_of(items: Iterable[Item]) -> list[str]:
    """All folders of a view but its root, each after the one that it is in.

    Raises:
        UnsafeError: an item stands below a link: it would be written to where the link leads.
    """
    folders, links = {""}, set()
    for item in items:
        if item.kind == "link":
            links.add(item.path)
        folder = item.path if item.kind == "folder" else item.path.rpartition("/")[0]
        if folder not in folders:
            folders.add(folder)
            folders.update(parents(folder))
    if through := sorted(links & folders):
        raise UnsafeError(
            "entries of an archive stand below its own symbolic links: "
            + ", ".join(through[:_LISTED]),
            hint="such an archive is not unpacked; tell its publisher",
            files=through,
        )
    folders.remove("")
    return sorted(folders)


def parents(path: str) -> Iterator[str]:
    """The folders on the way to a relative path, the outermost first."""
    parts = path.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])
