"""Trees: what archives hold, unpacked once per machine. Only this module makes a `Tree`.

A tree appears with one rename, its list of members and its summary with it. It is believed only
if it was written in the running boot, or synced to the disk after it was verified, and if every
file has the size that the list gives; else it is as good as none, and is mended file by file when
the same archive is unpacked again.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from dscache import disk, filesystem
from dscache.digest import fast_sum_of
from dscache.errors import StorageError
from dscache.malformed import MALFORMED
from dscache.store.blobs import Blob
from dscache.store.drafts import FILES, MEMBERS, SUMMARY, Draft
from dscache.store.layout import Layout
from dscache.store.members import FOLDER, LINK, Member, read
from dscache.store.owner import Boot, Owner, is_gone, is_running, this_boot, this_process

_OWNER = "owner.json"
_MAX_SUMMARY = 4096


class Tree(msgspec.Struct, frozen=True, gc=False):
    """The published extraction of a blob.

    Attributes:
        sha256, size, xxh3_128: of the blob, which may be gone by now.
        recipe: how it was unpacked.
        path: folder of the members.
        files: how many of them are files.
        bytes: what these hold.
    """

    sha256: str
    size: int
    xxh3_128: str
    recipe: str
    path: str
    files: int
    bytes: int


class _Summary(msgspec.Struct, frozen=True):
    sha256: str
    size: int
    xxh3_128: str
    files: int
    bytes: int
    list_sum: str
    boot: Boot | None
    durable: bool
    format: int = 1

    @property
    def holds(self) -> bool:
        """True if no power cut can have come between writing and now."""
        return self.durable or is_running(self.boot)


class Trees:
    """The trees of one cache root. With `durable` each is synced before it is published, with
    `read_only` it is not noted that one was verified.
    """

    def __init__(self, layout: Layout, *, durable: bool, read_only: bool = False) -> None:
        self._layout = layout
        self._durable = durable
        self._read_only = read_only

    def find(self, sha256: str, recipe: str) -> Tree | None:
        """The tree of a blob, if it is here and can be believed.

        Raises:
            StorageError: the disk does not let it be read.
        """
        folder = self._layout.tree(sha256, recipe)
        with disk.storage_errors("an unpacked archive in the cache cannot be read"):
            summary = _summary(folder)
            if summary is None or summary.sha256 != sha256:
                return None
            tree = _tree(folder, summary, recipe)
            if not self._is_whole(tree, summary.list_sum):
                return None
            if not summary.holds:
                if self.damaged(tree) is not None:
                    return None
                if not self._read_only:
                    with suppress(OSError):  # a cache of others; it is verified again next time
                        self.sync(sha256, recipe)
        return tree

    def path(self, sha256: str, recipe: str) -> str:
        """The folder of the members of a tree."""
        return f"{self._layout.tree(sha256, recipe)}/{FILES}"

    def members(self, sha256: str, recipe: str) -> Iterator[Member]:
        """All entries of a tree, folders before what they hold.

        Raises:
            FileNotFoundError: there is no such tree.
            OSError: its list cannot be read, or is damaged.
        """
        path = f"{self._layout.tree(sha256, recipe)}/{MEMBERS}"
        try:
            yield from read(path)
        except ValueError as error:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path) from error

    def fault(self, sha256: str, recipe: str) -> str:
        """What is wrong with the list of a tree or with its summary; empty if nothing is.

        Raises:
            OSError: they cannot be read.
        """
        folder = self._layout.tree(sha256, recipe)
        summary = _summary(folder)
        try:
            list_sum = fast_sum_of(f"{folder}/{MEMBERS}")
        except (FileNotFoundError, NotADirectoryError):
            list_sum = ""
        if not list_sum or (summary and summary.list_sum != list_sum):
            return "the list of its members is missing or damaged"
        if summary is None or summary.sha256 != sha256:
            return "its summary is missing or damaged"
        return ""

    def distrust(self, sha256: str, recipe: str) -> None:
        """Have all of a tree verified before it is used again.

        Raises:
            StorageError: the disk does not take it.
        """
        folder = self._layout.tree(sha256, recipe)
        with disk.storage_errors("an unpacked archive cannot be given up"):
            summary = _summary(folder)
            if summary:
                doubtful = msgspec.structs.replace(summary, boot=None, durable=False)
                _write(folder, doubtful, durable=True)

    def forget(self, sha256: str, recipe: str) -> None:
        """Have a tree count as none; what it holds goes when the cache is pruned.

        Raises:
            StorageError: the disk does not let it.
        """
        with disk.storage_errors("an unpacked archive cannot be given up"):
            filesystem.unlink(f"{self._layout.tree(sha256, recipe)}/{SUMMARY}")

    def is_listed(self, sha256: str, recipe: str) -> bool:
        """True if `members` has something to read."""
        return os.path.exists(f"{self._layout.tree(sha256, recipe)}/{MEMBERS}")

    def damaged(self, tree: Tree) -> Member | None:
        """The first member that is not as it was written; reads every file."""
        return next(
            (
                each
                for each in self.members(tree.sha256, tree.recipe)
                if not stands(tree.path, each)
            ),
            None,
        )

    def sync(self, sha256: str, recipe: str) -> None:
        """Bring a tree that is right to the disk, if it is not known to be there.

        Raises:
            StorageError: the disk does not take it.
        """
        folder = self._layout.tree(sha256, recipe)
        with disk.storage_errors("an unpacked archive cannot be synced"):
            summary = _summary(folder)
            if summary and not summary.durable:
                filesystem.sync_all(folder)
                _write(folder, msgspec.structs.replace(summary, durable=True), durable=True)

    def begin(self, key: str) -> Draft:
        """A new draft. What dead processes left of others of that key is removed."""
        folder = self._layout.draft(key, secrets.token_hex(8))
        with disk.storage_errors("an archive cannot be unpacked"):
            self._remove_orphans(key)
            owner = msgspec.json.encode(this_process())
            try:
                filesystem.publish_bytes(owner, f"{folder}/{_OWNER}")
                return Draft(folder)
            except BaseException:
                with suppress(OSError):  # which must not hide the error
                    filesystem.remove_tree(folder)
                raise

    def publish(self, draft: Draft, blob: Blob, recipe: str) -> Tree:
        """Give a complete draft its place; one that stands there already is mended from it."""
        with disk.storage_errors("an unpacked archive cannot be stored"):
            listed = draft.close()
            summary = _Summary(
                sha256=blob.sha256,
                size=blob.size,
                xxh3_128=blob.xxh3_128,
                files=listed.files,
                bytes=listed.bytes,
                list_sum=listed.xxh3_128,
                boot=this_boot(),
                durable=self._durable,
            )
            _write(draft.folder, summary)
            if self._durable:
                filesystem.sync_all(draft.folder)
            folder = self._layout.tree(blob.sha256, recipe)
            self._publish(draft, folder)
            filesystem.drop(f"{folder}/{_OWNER}")  # last: a draft that nobody owns would stay
            return _tree(folder, summary, recipe)

    def draft_owner(self, folder: str) -> Owner | None:
        """Who makes a draft; None where nobody knows."""
        return _owner(folder)

    def summary(self, folder: str) -> str:
        """The file without which nobody believes in a tree: of what is removed it goes first."""
        return f"{folder}/{SUMMARY}"

    def all(self) -> Iterator[Tree]:
        """Every tree with a summary that makes sense."""
        for shard in disk.names(self._layout.trees):
            for name in disk.names(f"{self._layout.trees}/{shard}"):
                folder = f"{self._layout.trees}/{shard}/{name}"
                summary = _summary(folder)
                if summary:
                    yield _tree(folder, summary, name.partition(".")[2].rpartition("-")[0])

    def _publish(self, draft: Draft, folder: str) -> None:
        filesystem.make_folder(os.path.dirname(folder))
        try:
            filesystem.rename(draft.folder, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
            _mend(folder, draft.folder, durable=self._durable)
            draft.discard()
        if self._durable:
            filesystem.sync_path(os.path.dirname(folder))

    def _is_whole(self, tree: Tree, list_sum: str) -> bool:
        """A quick look: every member stands there, and files have their sizes."""
        try:
            if fast_sum_of(f"{os.path.dirname(tree.path)}/{MEMBERS}") != list_sum:
                return False
            for each in self.members(tree.sha256, tree.recipe):
                found = os.lstat(f"{tree.path}/{each.path}")
                if each.is_file and found.st_size != each.size:
                    return False
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _remove_orphans(self, key: str) -> None:
        for name in disk.names(self._layout.parts):
            if name.startswith(f"{key}.") and name.endswith(".tree"):
                folder = f"{self._layout.parts}/{name}"
                owner = _owner(folder)
                if owner and is_gone(owner):
                    # Of another user, whose umask keeps others out: it stays until it is old.
                    with suppress(PermissionError):
                        filesystem.remove_tree(folder)


def _tree(folder: str, summary: _Summary, recipe: str) -> Tree:
    return Tree(
        summary.sha256,
        summary.size,
        summary.xxh3_128,
        recipe,
        f"{folder}/{FILES}",
        summary.files,
        summary.bytes,
    )


def _summary(folder: str) -> _Summary | None:
    try:
        data = disk.read_small(f"{folder}/{SUMMARY}", _MAX_SUMMARY)
        return msgspec.json.decode(data, type=_Summary)
    except (FileNotFoundError, NotADirectoryError, StorageError, *MALFORMED):
        return None  # without a summary the archive is unpacked again


def _write(folder: str, summary: _Summary, *, durable: bool = False) -> None:
    data = msgspec.json.encode(summary)
    filesystem.publish_bytes(data, f"{folder}/{SUMMARY}", durable=durable)


def _owner(folder: str) -> Owner | None:
    try:
        data = disk.read_small(f"{folder}/{_OWNER}", _MAX_SUMMARY)
        return msgspec.json.decode(data, type=Owner)
    except (OSError, *MALFORMED):
        return None  # nobody knows whose it is: it stays until it is old


def stands(root: str, member: Member) -> bool:
    """True if the member is as it was written."""
    path = f"{root}/{member.path}"
    try:
        if member.mode == FOLDER:
            return os.path.isdir(path) and not os.path.islink(path)
        if member.mode == LINK:
            return os.readlink(path) == member.target
        if os.path.islink(path) or os.stat(path).st_size != member.size:
            return False
        return fast_sum_of(path) == member.xxh3_128
    except OSError:
        return False


def _mend(folder: str, draft: str, *, durable: bool) -> None:
    """Replace what is wrong in a tree by what the draft has in its place, then list and summary.

    The old summary goes first: it could vouch for bytes that the disk has not seen.
    """
    filesystem.unlink(f"{folder}/{SUMMARY}")
    filesystem.sync_path(folder)
    root, better = f"{folder}/{FILES}", f"{draft}/{FILES}"
    filesystem.make_folder(root)
    for member in read(f"{draft}/{MEMBERS}"):
        if stands(root, member):
            continue
        path = f"{root}/{member.path}"
        if os.path.isdir(path) and not os.path.islink(path):
            filesystem.remove_tree(path)
        if member.mode == FOLDER:
            filesystem.unlink(path)
            filesystem.make_folder(path)
        else:
            filesystem.make_folder(os.path.dirname(path))
            filesystem.rename(f"{better}/{member.path}", path)
    if durable:
        filesystem.sync_all(folder)
    for name in (MEMBERS, SUMMARY):
        filesystem.rename(f"{draft}/{name}", f"{folder}/{name}")
    if durable:
        filesystem.sync_path(folder)
