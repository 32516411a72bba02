"""Verifying: whether what the cache holds is still what was stored. Changes nothing.

Blobs and the files of trees are compared with the xxh3_128 that was computed while they were
written, at the speed of the disk; `full` computes the sha256 of blobs instead. A file of a view is
mostly a link to one of these and is not read again; an edited hard link is found with them.
"""

from __future__ import annotations

import os
from collections import defaultdict
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
    """A file, and what it should be. `sha256` is that of its blob or archive.

    `known` is what is known to be wrong with it without a look.
    """

    path: str
    sha256: str
    size: int
    xxh3_128: str
    computes_sha256: bool = False
    known: str = ""

    def problem(self) -> str:
        """What is wrong with the file, if anything is."""
        if self.known:
            return self.known
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
    users = _users(records)
    found: dict[str, Damage] = {}
    checked = 0
    what = "the cache cannot be read"
    with disk.storage_errors(what), ThreadPoolExecutor(os.cpu_count()) as executor:
        checks = _checks(store, records, full)
        while batch := list(islice(checks, _BATCH)):
            checked += len(batch)
            for check, problem in zip(batch, executor.map(_Check.problem, batch), strict=True):
                if problem:
                    digest = f"sha256:{check.sha256}"
                    found[check.path] = Damage(
                        digest, check.path, tuple(users[check.sha256]), problem
                    )
        views = list(_views(store, records, found.keys()))
    checked += len(records)
    return Verified(checked, checked - len(found) - len(views), (*found.values(), *views))


def _checks(store: Store, records: Sequence[Record], full: bool) -> Iterator[_Check]:
    """Every file once, however many datasets have it."""
    seen: set[str] = set()
    for record in records:
        for file in record.files:
            path = store.layout.blob(file.sha256)
            if path not in seen:
                seen.add(path)
                yield _Check(path, file.sha256, file.size, file.xxh3_128, full)
        for each in record.trees:
            blob = store.layout.blob(each.sha256)
            if blob not in seen and os.path.exists(blob):  # an archive may be dropped
                seen.add(blob)
                yield _Check(blob, each.sha256, each.size, each.xxh3_128, full)
            root = store.trees.path(each.sha256, each.recipe)
            if root not in seen:
                seen.add(root)
                yield from _members(store, each)


def _folder_of(store: Store, each: Unpacked) -> str:
    return store.layout.tree(each.sha256, each.recipe)


def _members(store: Store, each: Unpacked) -> Iterator[_Check]:
    root = store.trees.path(each.sha256, each.recipe)
    try:
        for member in store.trees.members(each.sha256, each.recipe):
            if member.is_file:
                path = f"{root}/{member.path}"
                yield _Check(path, each.sha256, member.size, member.xxh3_128)
    except OSError:  # without its list nothing of a tree can be told
        problem = "the list of its members is missing or damaged"
        yield _Check(_folder_of(store, each), each.sha256, 0, "", known=problem)


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


def _users(records: Sequence[Record]) -> dict[str, list[str]]:
    """The datasets that hold each blob or archive, by its sha256."""
    users: dict[str, list[str]] = defaultdict(list)
    for record in records:
        files, trees = record.files, record.trees
        for sha256 in {each.sha256 for each in files} | {each.sha256 for each in trees}:
            users[sha256].append(str(record.reference))
    return users
