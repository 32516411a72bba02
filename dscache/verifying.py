"""Verifying: whether what the cache holds is still what was stored. Changes nothing.

Blobs and the files of trees are compared with the xxh3_128 that was computed while they were
written, at the speed of the disk; `full` computes the sha256 of blobs instead. A file of a view is
mostly a link to one of these and is not read again; an edited hard link is found with them.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import msgspec

from dscache import disk, view
from dscache.digest import fast_sum_of, sums_of
from dscache.results import Damage, Verified
from dscache.store import Record, Store, Unpacked

#: Files that are handed to the threads at a time; there may be millions.
_BATCH = 2000


class _Check(msgspec.Struct, frozen=True, gc=False):
    """A file, what it should be, and who needs it. `sha256` is that of its blob or archive.

    `known` is what is known to be wrong with it without a look.
    """

    path: str
    sha256: str
    size: int
    xxh3_128: str
    dataset: str
    computes_sha256: bool = False
    known: str = ""

    def damage(self) -> Damage | None:
        """What is wrong with the file, if anything is."""
        problem = self.known or self._problem()
        if not problem:
            return None
        return Damage(f"sha256:{self.sha256}", self.path, (self.dataset,), problem)

    def _problem(self) -> str:
        try:
            size = os.stat(self.path).st_size
            if size != self.size:
                return f"{size} bytes instead of {self.size}"
            if self.computes_sha256:
                is_right = sums_of(self.path)["sha256"] == self.sha256
            else:
                is_right = fast_sum_of(self.path) == self.xxh3_128
        except FileNotFoundError:
            return "missing"
        return "" if is_right else "other content"


def verify(store: Store, records: Sequence[Record], *, full: bool = False) -> Verified:
    """Read everything that these datasets hold, on all cores.

    Raises:
        StorageError: the disk does not let it be read.
    """
    found: dict[str, Damage] = {}
    checked = 0
    what = "the cache cannot be read"
    with disk.storage_errors(what), ThreadPoolExecutor(os.cpu_count()) as executor:
        checks = _checks(store, records, full)
        while batch := list(islice(checks, _BATCH)):
            checked += len(batch)
            for damage in filter(None, executor.map(_Check.damage, batch)):
                found[damage.path] = damage
        views = list(_views(store, records, found.keys()))
    checked += len(records)
    damages = [_with_users(damage, records) for damage in found.values()]
    return Verified(checked, checked - len(damages) - len(views), (*damages, *views))


def _checks(store: Store, records: Sequence[Record], full: bool) -> Iterator[_Check]:
    """Every file once, however many datasets have it."""
    seen: set[str] = set()
    for record in records:
        name = str(record.reference)
        for file in record.files:
            path = store.layout.blob(file.sha256)
            if path not in seen:
                seen.add(path)
                yield _Check(path, file.sha256, file.size, file.xxh3_128, name, full)
        for each in record.trees:
            blob = store.layout.blob(each.sha256)
            if blob not in seen and os.path.exists(blob):  # an archive may be dropped
                seen.add(blob)
                yield _Check(blob, each.sha256, each.size, each.xxh3_128, name, full)
            root = store.trees.path(each.sha256, each.recipe)
            if root not in seen:
                seen.add(root)
                yield from _members(store, each, name)


def _folder_of(store: Store, each: Unpacked) -> str:
    return store.layout.tree(each.sha256, each.recipe)


def _members(store: Store, each: Unpacked, name: str) -> Iterator[_Check]:
    root = store.trees.path(each.sha256, each.recipe)
    try:
        for member in store.trees.members(each.sha256, each.recipe):
            if member.is_file:
                path = f"{root}/{member.path}"
                yield _Check(path, each.sha256, member.size, member.xxh3_128, name)
    except OSError:  # without its list nothing of a tree can be told
        problem = "the list of its members is missing or damaged"
        yield _Check(_folder_of(store, each), each.sha256, 0, "", name, known=problem)


def _views(store: Store, records: Sequence[Record], damaged: Container[str]) -> Iterator[Damage]:
    """The views that do not show what their records name, as far as that is known."""
    for record in records:
        folder = store.layout.view(record.registry, record.name, record.version, record.content)
        trees = [
            each
            for each in record.trees
            if each.complete and _folder_of(store, each) not in damaged
        ]
        if not view.is_sound(folder, view.Contents(store, record.files, trees)):
            problem = "links of the view are missing or wrong"
            yield Damage("", folder, (str(record.reference),), problem)


def _with_users(damage: Damage, records: Sequence[Record]) -> Damage:
    """The damage with all datasets that hold the file."""
    sha256 = damage.digest.removeprefix("sha256:")
    users = (
        str(record.reference)
        for record in records
        if sha256 in {file.sha256 for file in record.files} | {tree.sha256 for tree in record.trees}
    )
    return msgspec.structs.replace(damage, datasets=tuple(users))
