"""Contents: the items of a dataset, from what its record names."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence

from dscache.recipes import SINGLE
from dscache.store import File, Store, Unpacked
from dscache.store.members import Member
from dscache.view.items import Item
from dscache.view.outline import parents

#: So many links are followed one after the other, as in Linux (path_resolution(7)).
_MOST_LINKS = 40


class Contents:
    """What stands in a view: files as they came, and what archives hold; read anew each time.

    Args:
        wants: which paths; None for all. A link that is wanted brings what it leads to.
    """

    def __init__(
        self,
        store: Store,
        files: Sequence[File],
        trees: Sequence[Unpacked],
        wants: Callable[[str], bool] | None = None,
    ) -> None:
        self._store = store
        self._files = files
        self._trees = trees
        self._wants = wants

    def __iter__(self) -> Iterator[Item]:
        """The items, folders before what they hold.

        Raises:
            FileNotFoundError: a tree is not here any more.
        """
        wants, layout = self._wants, self._store.layout
        for file in self._files:
            if wants is None or wants(file.path):
                yield Item(file.path, layout.blob(file.sha256), file.size, file.xxh3_128)
        for each in self._trees:
            if wants is None:
                yield from self._all(each)
            else:
                yield from self._wanted(each, wants)

    def _all(self, each: Unpacked) -> Iterator[Item]:
        trees = self._store.trees
        root = trees.path(each.sha256, each.recipe)
        folder = f"{each.place}/" if each.place else ""
        for member in trees.members(each.sha256, each.recipe):
            path = each.place if each.recipe in SINGLE else f"{folder}{member.path}"
            yield _item(path, f"{root}/{member.path}", member)

    def _wanted(self, each: Unpacked, wants: Callable[[str], bool]) -> Iterator[Item]:
        targets = self._targets(each, wants)
        on_the_way = _folders_to(targets)
        for item in self._all(each):
            if item.kind == "folder":
                continue
            is_passed = item.kind == "link" and item.path in on_the_way
            if is_passed or wants(item.path) or _is_below(item.path, targets):
                yield item

    def _targets(self, each: Unpacked, wants: Callable[[str], bool]) -> set[str]:
        """Where the wanted links lead, directly or through others."""
        targets: set[str] = set()
        for _ in range(_MOST_LINKS):
            on_the_way = _folders_to(targets)
            found: set[str] = set()
            for item in self._all(each):
                if item.kind != "link":
                    continue
                if wants(item.path) or _is_below(item.path, targets):
                    found.add(_led(item, ""))
                if item.path in on_the_way:
                    start = f"{item.path}/"
                    rests = (path[len(start) :] for path in targets if path.startswith(start))
                    found.update(_led(item, rest) for rest in rests)
            if found <= targets:
                break
            targets |= found
        return targets


def _led(link: Item, rest: str) -> str:
    """Where `rest` below a link leads."""
    path = posixpath.join(posixpath.dirname(link.path), link.target, rest)
    return posixpath.normpath(path)


def _folders_to(paths: set[str]) -> set[str]:
    return {folder for path in paths for folder in parents(path)}


def _is_below(path: str, targets: set[str]) -> bool:
    if path in targets or "." in targets:
        return True
    return bool(targets) and any(folder in targets for folder in parents(path))


def _item(path: str, source: str, member: Member) -> Item:
    if member.is_file:
        return Item(path, source, member.size, member.xxh3_128)
    if stat.S_ISLNK(member.mode):
        return Item(path, kind="link", target=member.target)
    return Item(path, kind="folder")
