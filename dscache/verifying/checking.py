"""Checking: what there is to look at in a store, in one fixed order, and what is wrong with a file.

It reads, and neither decides what follows nor knows threads. The truth of a blob is the sha256 that
it is named by; of a member of a tree, the list; of the list, the summary of its tree. A record only
repeats these, so that a file which a record tells otherwise than its name does is right.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container, Iterator, Sequence

import msgspec

from dscache.digest import Reader, is_sha256
from dscache.errors import DscacheError
from dscache.model import check_path
from dscache.store import Record, Store
from dscache.store.drafts import MEMBERS
from dscache.store.members import Member
from dscache.store.trees import stands

#: Of a record: what it says of a file is wrong, and the file is right.
MISTOLD = "a record tells another size or xxh3_128 than it has"

#: Of a file that has more names than the cache gave it.
LINKED = "it is linked from outside the cache, where it may have been edited"

_XXH3 = re.compile(r"[0-9a-f]{32}")

#: Where a check stands in the order of all of them.
Position = tuple[int, str, str, str, int]


class Unit(msgspec.Struct, frozen=True, gc=False):
    """A blob as a record tells it, or a tree, which has a recipe.

    Attributes:
        size: bytes that are read.
        xxh3_128: of a blob that a record names; empty where only its name tells what it is.
        files: how many are read.
        may_be_gone: nothing is wrong if there is no such blob.
    """

    size: int
    sha256: str
    xxh3_128: str = ""
    recipe: str = ""
    files: int = 1
    may_be_gone: bool = False

    @property
    def position(self) -> tuple[int, str, str, str]:
        """The largest come first, so that all cores end at about the same time."""
        return -self.size, self.sha256, self.recipe, self.xxh3_128

    def described_by(self, store: Store) -> str:
        """The path of what tells its checks: of a tree the list, of a blob itself."""
        if not self.recipe:
            return store.layout.blob(self.sha256)
        return f"{store.layout.tree(self.sha256, self.recipe)}/{MEMBERS}"

    def checks(self, store: Store) -> Iterator[Check]:
        """What there is to look at, in its order."""
        if not self.recipe:
            yield Check(store.layout.blob(self.sha256), self)
            return
        folder = store.layout.tree(self.sha256, self.recipe)
        root = store.trees.path(self.sha256, self.recipe)
        try:
            fault = store.trees.fault(self.sha256, self.recipe)
            yield Check(folder, self, known=fault)
            if not fault:
                members = store.trees.members(self.sha256, self.recipe)
                for number, member in enumerate(members, 1):
                    yield Check(f"{root}/{member.path}", self, number, member)
        except OSError as error:
            yield Check(folder, self, known=_unreadable(error))


class Check(msgspec.Struct, frozen=True, gc=False):
    """One look: at a blob, a member of a tree, or what describes a tree (`known` is what is wrong
    with that).
    """

    path: str
    unit: Unit
    number: int = 0
    member: Member | None = None
    known: str = ""

    @property
    def position(self) -> Position:
        """Where it stands in the order of all checks."""
        return *self.unit.position, self.number

    @property
    def counts(self) -> bool:
        """True if it is a file of a dataset, which reports count."""
        return not self.unit.recipe or (self.member is not None and self.member.is_file)

    def problem(self, reader: Reader, *, full: bool) -> str:
        """What is wrong, if anything is; with `full` a blob is compared by its sha256."""
        if self.known:
            return self.known
        try:
            if self.member:
                return self._of_member(self.member, reader)
            return self._of_blob(reader, full) if not self.unit.recipe else ""
        except (FileNotFoundError, NotADirectoryError):
            return "" if self.unit.may_be_gone else "missing"
        except OSError as error:
            return _unreadable(error)

    @property
    def size(self) -> int:
        """Bytes that are read."""
        if self.member:
            return self.member.size
        return 0 if self.unit.recipe else self.unit.size

    def _of_blob(self, reader: Reader, full: bool) -> str:
        size, told = os.stat(self.path).st_size, self.unit.xxh3_128
        fits = not told or size == self.unit.size
        is_quick = bool(told) and not full
        if is_quick and fits and reader.sum_of(self.path, "xxh3_128") == told:
            return ""
        if reader.sum_of(self.path, "sha256") == self.unit.sha256:
            return MISTOLD if is_quick or not fits else ""
        return "other content" if fits else _other_size(size, self.unit.size)

    def _of_member(self, member: Member, reader: Reader) -> str:
        if not member.is_file:
            root = self.path[: -len(member.path) - 1]
            return "" if stands(root, member) else "missing, or something else"
        found = os.lstat(self.path)
        if not stat.S_ISREG(found.st_mode):
            return "not a file"
        if found.st_size != member.size:
            return _other_size(found.st_size, member.size)
        if reader.sum_of(self.path, "xxh3_128") != member.xxh3_128:
            return "other content"
        return ""


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was stored.

    Attributes:
        kind: "blob", "tree", "view" or "record".
        path: where it is; of a tree a member, or the whole of it.
        sha256: of the blob or archive.
        recipe: of a tree.
        mark: of the dataset whose view or record it is.
    """

    kind: str
    path: str
    problem: str
    sha256: str = ""
    recipe: str = ""
    mark: str = ""


def finding(check: Check, problem: str) -> Finding:
    """What a check has found."""
    unit = check.unit
    if unit.recipe:
        return Finding("tree", check.path, problem, unit.sha256, unit.recipe)
    return Finding("blob", check.path, problem, unit.sha256)


def units(store: Store, records: Sequence[Record], *, unnamed: bool) -> list[Unit]:
    """All that these datasets hold, once each; with `unnamed` also what no record names."""
    found: dict[tuple[int, str, str, str], Unit] = {}
    for record in records:
        for each in record.trees:
            archive = Unit(each.size, each.sha256, each.xxh3_128, may_be_gone=True)
            tree = Unit(each.bytes, each.sha256, "", each.recipe, each.files)
            found[tree.position] = tree
            found.setdefault(archive.position, archive)
        for file in record.files:
            blob = Unit(file.size, file.sha256, file.xxh3_128)
            found[blob.position] = blob
    named = {(each.sha256, each.recipe) for each in found.values()}
    for sha256 in {sha256 for each in records for sha256 in each.keeps}:
        if (sha256, "") not in named:
            named.add((sha256, ""))
            kept = Unit(store.blobs.size(sha256), sha256)
            found[kept.position] = kept
    if unnamed:
        found |= {each.position: each for each in _unnamed(store, named)}
    return [found[position] for position in sorted(found)]


def is_changed(path: str, since: float) -> bool:
    """True if the file may have been written, renamed or linked after that time."""
    try:
        found = os.lstat(path)
    except OSError:
        return True
    return max(found.st_mtime, found.st_ctime) >= since


def fault_of(record: Record, mark: str) -> str:
    """What a record says that the record of that mark cannot say; empty for one that is sane."""
    if record.mark != mark:
        return f"it is that of {record.mark}"
    try:
        for file in record.files:
            check_path(file.path)
            _check(file.sha256, file.size, file.xxh3_128)
        for each in record.trees:
            check_path(each.path)
            if each.place:
                check_path(each.place)
            _check(each.sha256, each.size, each.xxh3_128)
    except (DscacheError, ValueError) as error:
        return f"it makes no sense: {error}"
    return ""


def _check(sha256: str, size: int, xxh3_128: str) -> None:
    if size < 0 or not is_sha256(sha256) or not _XXH3.fullmatch(xxh3_128):
        raise ValueError(f"a file of {size} bytes with sha256 {sha256!r} and xxh3_128 {xxh3_128!r}")


def _unnamed(store: Store, named: Container[tuple[str, str]]) -> Iterator[Unit]:
    """The other blobs and trees of the store, known by nothing but their names."""
    for sha256 in store.blobs.hashes():
        if (sha256, "") not in named:
            yield Unit(store.blobs.size(sha256), sha256, may_be_gone=True)
    for tree in store.trees.all():
        folder = store.layout.tree(tree.sha256, tree.recipe)
        # One of an older way of unpacking is nobody's any more.
        if (tree.sha256, tree.recipe) not in named and os.path.dirname(tree.path) == folder:
            yield Unit(tree.bytes, tree.sha256, "", tree.recipe, tree.files)


def _other_size(found: int, wanted: int) -> str:
    return f"{found} bytes instead of {wanted}"


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {os.strerror(error.errno) if error.errno else error}"
