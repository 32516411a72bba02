"""The inventory: what the cache holds, and how many datasets need each blob and each tree.

It is made for a million blobs: each is a number, and what is known of it stands in arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import msgspec

from dscache import disk
from dscache.digest import is_sha256
from dscache.model import Reference
from dscache.store import Record, Store


class Archive(msgspec.Struct, frozen=True):
    """An archive that a dataset has unpacked: path, sha256, and the recipe of its tree."""

    path: str
    sha256: str
    recipe: str


class Holding(msgspec.Struct, frozen=True):
    """One dataset.

    Attributes:
        mark: as the store knows it.
        reference: as people know it.
        last_used: in seconds since 1970.
        size: bytes of its files as they stand in it.
        things: the numbers of the blobs and trees that it needs, each once.
    """

    mark: str
    reference: Reference
    last_used: float
    size: int
    things: array[int]
    archives: tuple[Archive, ...]


class Inventory:
    """What there is.

    Attributes:
        datasets: those with a record.
        unreadable: records that cannot be read, and why: nobody knows what they need.
        sizes: bytes of each blob and tree, as its record gives them.
        holders: how many datasets need it.
        links: how often it stands in views.
        kept: those that a dataset needs though no view shows them.
        present: 1 where it is here.
        strays: path, and bytes, of blobs and trees that no record names.
    """

    def __init__(self, store: Store) -> None:
        self.datasets: list[Holding] = []
        self.unreadable: list[tuple[str, str]] = []
        self.sizes = array("q")
        self.holders = array("I")
        self.links = array("I")
        self.kept: set[int] = set()
        self.strays: list[str] = []
        self._store = store
        self._numbers: dict[bytes, int] = {}
        self._read()
        self.present = bytearray(len(self.sizes))
        with disk.storage_errors("the cache cannot be read"):
            self._look()
        self._keys = list(self._numbers)

    def blob(self, sha256: str) -> int | None:
        """The number of a blob; None if no record names it."""
        return self._numbers.get(bytes.fromhex(sha256))

    def path(self, number: int) -> str:
        """Where a blob or tree lies."""
        key = self._keys[number]
        sha256, recipe = key[:32].hex(), key[32:].decode()
        layout = self._store.layout
        return layout.tree(sha256, recipe) if recipe else layout.blob(sha256)

    def users(self, number: int, but: Archive) -> list[str]:
        """The datasets that need a blob, but those that have it as that archive alone."""
        return [
            str(each.reference)
            for each in self.datasets
            if number in each.things and all(one.sha256 != but.sha256 for one in each.archives)
        ]

    def is_tree(self, number: int) -> bool:
        """True for a tree."""
        return len(self._keys[number]) > 32

    def target(self, number: int) -> str:
        """A blob by its sha256, a tree by its path: how removals name them."""
        return self.path(number) if self.is_tree(number) else self._keys[number].hex()

    @property
    def size(self) -> int:
        """Bytes of all blobs and trees that records name and that are here."""
        return sum(size for size, here in zip(self.sizes, self.present, strict=True) if here)

    def _read(self) -> None:
        for path, used, record in self._store.records.survey():
            if isinstance(record, Record):
                self.datasets.append(self._taken(record, used))
            else:
                self.unreadable.append((path, record))

    def _taken(self, record: Record, used: float) -> Holding:
        # The loop over files runs a million times: it names what it uses, and calls little.
        numbers, sizes, fromhex = self._numbers, self.sizes, bytes.fromhex
        linked = []
        for file in record.files:
            number = numbers.setdefault(fromhex(file.sha256), len(sizes))
            if number == len(sizes):
                sizes.append(file.size)
            linked.append(number)
        for each in record.trees:
            linked.append(self._number(fromhex(each.sha256) + each.recipe.encode(), each.bytes))
        kept = [self._number(fromhex(each), self._store.blobs.size(each)) for each in record.keeps]
        self.kept.update(kept)
        archives = [self._number(fromhex(each.sha256), each.size) for each in record.trees]
        things = array("I", {*linked, *kept, *archives})
        self._count(self.links, linked)
        self._count(self.holders, things)
        return Holding(
            mark=record.mark,
            reference=record.reference,
            last_used=used,
            size=record.size,
            things=things,
            archives=tuple(Archive(each.path, each.sha256, each.recipe) for each in record.trees),
        )

    def _number(self, key: bytes, size: int) -> int:
        number = self._numbers.setdefault(key, len(self.sizes))
        if number == len(self.sizes):
            self.sizes.append(size)
        return number

    def _count(self, counts: array[int], numbers: Iterable[int]) -> None:
        missing = len(self.sizes) - len(counts)
        counts.frombytes(bytes(missing * counts.itemsize))
        for number in numbers:
            counts[number] += 1

    def _look(self) -> None:
        """What of it is here, and what else."""
        layout = self._store.layout
        present, number_of, fromhex = self.present, self._numbers.get, bytes.fromhex
        for sha256 in self._store.blobs.hashes():
            number = number_of(fromhex(sha256))
            if number is None:
                self.strays.append(layout.blob(sha256))
            else:
                present[number] = 1
        for name in disk.names_below(layout.trees):
            sha256, _, rest = name.partition(".")
            if not is_sha256(sha256):
                continue
            recipe = rest.rpartition("-")[0]
            path = f"{layout.trees}/{name[:2]}/{name[2:]}"
            is_current = path == layout.tree(sha256, recipe)
            key = fromhex(sha256) + recipe.encode() if is_current else b""
            number = number_of(key)
            if number is None:
                self.strays.append(path)
            else:
                present[number] = 1


def sha256_in(target: str) -> str:
    """The sha256 of a blob, or of the archive of a tree, given as it is or by its path."""
    return "".join(target.split("/")[-2:])[:64]
