"""Room: what stands in a folder of the user already, looked at before anything is changed.

It only looks. A folder that exists is read once, its files are looked at only where something has
their name; what is in no folder is not looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import msgspec

from dscache.settings import LINK_MODES
from dscache.view.items import Item
from dscache.view.links import shown_otherwise, stands_as

#: What was found for an item, kept as one byte: an index into this.
FOUND = ("", "in the way", "link", "folder", *LINK_MODES[1:])
ABSENT, IN_THE_WAY = 0, 1

_CODES = {name: code for code, name in enumerate(FOUND)}
#: So many names of a user's files are kept at most, some 100 bytes each.
_NAMES_KEPT = 200_000


class Room(msgspec.Struct, frozen=True):
    """What stands in the folder.

    Attributes:
        existing: those of the view's folders that are there; "" is the root.
        found: for each item in order, an index into `FOUND`; empty where the root is not there.
        files: paths of items at which something else stands.
        parents: paths of the view's folders at which something stands that is none.
    """

    existing: frozenset[str]
    found: bytearray
    files: frozenset[str]
    parents: frozenset[str]


def look(folder: str, items: Iterable[Item], folders: Sequence[str]) -> Room:
    """Look at all that stands where the items are going to be; `folders` are those of the view."""
    existing, parents = _folders(folder, folders)
    found, files = bytearray(), set[str]()
    if existing:
        names = _Names(folder, existing)
        for item in items:
            code = ABSENT
            if item.kind != "folder" and names.may_have(item.path):
                there = f"{folder}/{item.path}"
                # In this order: another process may place the same at the same time.
                if os.path.lexists(there):
                    code = _CODES[stands_as(there, item)] or IN_THE_WAY
                if code == IN_THE_WAY:
                    files.add(item.path)
            found.append(code)
    return Room(frozenset(existing), found, frozenset(files), frozenset(parents))


def _folders(folder: str, folders: Sequence[str]) -> tuple[set[str], set[str]]:
    """Which of them are there, and at which something else stands."""
    if not os.path.isdir(folder):
        return set(), set()
    existing, blocked = {""}, set[str]()
    for path in folders:
        # In this order: another process may make it at the same time.
        if path.rpartition("/")[0] in existing and os.path.lexists(f"{folder}/{path}"):
            (existing if os.path.isdir(f"{folder}/{path}") else blocked).add(path)
    return existing, blocked


def twins(folder: str, items: Iterable[Item], files: Iterable[str]) -> set[str]:
    """Paths of items that have one name with another of `files` here: this filesystem ignores case.

    To replace one of them would be to replace the other.
    """
    known = {_folded(path): path for path in files}
    return {
        item.path
        for item in items
        if (other := known.get(_folded(item.path), item.path)) != item.path
        and os.path.lexists(f"{folder}/{item.path}")
        and (shown_otherwise(folder, item.path) or shown_otherwise(folder, other))
    }


class _Names:
    """The names in the folders that exist, each read once, as long as they are not too many."""

    def __init__(self, folder: str, existing: set[str]) -> None:
        self._folder = folder
        self._existing = existing
        self._known: dict[str, set[str] | None] = {}
        self._left = _NAMES_KEPT

    def may_have(self, path: str) -> bool:
        """False if nothing stands at `path`, in whatever case the filesystem may show it."""
        parent, _, name = path.rpartition("/")
        if parent not in self._existing:
            return False
        if parent not in self._known:
            self._known[parent] = self._read(parent)
        names = self._known[parent]
        return names is None or _folded(name) in names

    def _read(self, parent: str) -> set[str] | None:
        names = set[str]()
        try:
            with os.scandir(f"{self._folder}/{parent}") as entries:
                for entry in entries:
                    if len(names) >= self._left:
                        return None
                    names.add(_folded(entry.name))
        except PermissionError:  # a folder may be written to and yet not be listed
            return None
        self._left -= len(names)
        return names


def _folded(name: str) -> str:
    """Equal for all names that some filesystem takes for the same one."""
    if name.isascii():
        return name.lower()
    from unicodedata import normalize  # late: most names do not need it

    return normalize("NFC", normalize("NFC", name).casefold())
