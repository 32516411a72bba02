"""What the verbs answer with: frozen values that hold facts, for programs and for tables."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dscache.errors import DscacheError
from dscache.model import Dataset
from dscache.store.counters import Counts


class _Readable:
    """A result that is read as a sheet, where Python shows it and in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        from dscache.sheets import sheet_of  # late: most results are never shown

        return sheet_of(self).text()

    def _repr_html_(self) -> str:
        from dscache.sheets import sheet_of

        return sheet_of(self).html()


class Fetched(msgspec.Struct, frozen=True):
    """The outcome for one name of a fetch.

    Attributes:
        path: the file or folder; None where `error` says why there is none.
        status: "cached" (it stood there), "linked" (the bytes were here under another name) or
            "downloaded".
        bytes_downloaded: bytes that crossed the network in this call.
        bytes_resumed: bytes that earlier attempts had left.
        size: bytes of what was asked for.
        link: link mode used for `into`; empty without it.
    """

    name: str
    version: str = ""
    registry: str = ""
    path: Path | None = None
    status: str = ""
    bytes_downloaded: int = 0
    bytes_resumed: int = 0
    size: int = 0
    seconds: float = 0.0
    link: str = ""
    error: DscacheError | None = None

    def unwrap(self) -> Path:
        """The path; raises the error where there is none."""
        if self.error is not None:
            raise self.error
        if self.path is None:
            raise RuntimeError("a fetch has a path or an error")
        return self.path


class FileOf(msgspec.Struct, frozen=True):
    """One file of a dataset. `size` is None where nobody knows it yet."""

    path: str
    size: int | None


class Listing(msgspec.Struct, frozen=True):
    """The files of one version of a dataset, by path.

    Attributes:
        folder: where they stand; None where some are not in the cache.
    """

    name: str
    version: str
    registry: str
    folder: Path | None
    files: tuple[FileOf, ...]


class Cached(msgspec.Struct, frozen=True):
    """One dataset in the cache. `last_used` is in seconds since 1970."""

    name: str
    version: str
    registry: str
    bytes: int
    last_used: float
    complete: bool
    pinned: bool = False


class Available(msgspec.Struct, frozen=True):
    """One dataset that a registry offers, in its current version.

    Attributes:
        size: None where the registry does not know it.
        versions: all that the registry lists, the current one among them.
    """

    name: str
    version: str
    registry: str
    size: int | None
    summary: str
    cached: bool
    versions: tuple[str, ...] = ()


class Removal(msgspec.Struct, frozen=True):
    """Something that may go.

    Attributes:
        kind: "dataset", "archive", "blob", "tree", "part", "quarantine", "lease", "record", "root".
        bytes: what goes with it; what datasets share goes with the last of them.
        target: how the store knows it: mark, sha256 or path.
        last_used: of a dataset, in seconds since 1970.
    """

    kind: str
    name: str
    bytes: int
    reason: str
    target: str
    last_used: float | None = None


class Kept(msgspec.Struct, frozen=True):
    """Something that would go, but for the reason given."""

    name: str
    bytes: int
    reason: str


class Plan(_Readable, msgspec.Struct, frozen=True):
    """What pruning removes, or has removed.

    Attributes:
        freed_bytes: what the filesystem gets back: nothing of files that have other names.
    """

    removed: tuple[Removal, ...]
    kept: tuple[Kept, ...] = ()
    freed_bytes: int = 0


class Damage(msgspec.Struct, frozen=True):
    """A file that is not what was stored: digest of its blob or archive, and the datasets."""

    digest: str
    path: str
    datasets: tuple[str, ...]
    problem: str


class Verified(_Readable, msgspec.Struct, frozen=True):
    """How many files and views were looked at, how many are right now, and which are not.

    Attributes:
        corrupt: what remains, by path.
        repaired: what was found and is right again, by path.
    """

    checked: int
    ok: int
    corrupt: tuple[Damage, ...]
    repaired: tuple[Damage, ...] = ()


class Info(_Readable, msgspec.Struct, frozen=True):
    """All that is known of one dataset.

    Attributes:
        path: where it stands; None where it is not completely cached.
        archives_dropped: what it holds is unpacked, and archives of it are not kept.
    """

    dataset: Dataset
    versions: tuple[str, ...]
    registry_url: str
    also_in: tuple[str, ...]
    path: Path | None
    archives_dropped: bool = False


class DatasetUsage(msgspec.Struct, frozen=True):
    """What one cached dataset takes.

    Attributes:
        shared_bytes: those of its bytes that belong to others as well.
        last_used: in seconds since 1970.
        held_by: what keeps it from a prune, in words.
    """

    name: str
    version: str
    registry: str
    bytes: int
    shared_bytes: int
    last_used: float
    held_by: tuple[str, ...] = ()


class Group(msgspec.Struct, frozen=True):
    """Datasets that have something in common, and the bytes that they take together."""

    key: str
    bytes: int
    datasets: int


class Usage(_Readable, msgspec.Struct, frozen=True):
    """What the cache takes.

    Attributes:
        bytes: bytes of all blobs on disk.
        blobs: their number.
        saved_bytes: what the datasets would take on top if nothing were shared.
        groups: where they were asked for, the largest first.
        counts: what fetches found here and what they downloaded, since the cache was made.
    """

    root: str
    bytes: int
    blobs: int
    saved_bytes: int
    datasets: tuple[DatasetUsage, ...]
    groups: tuple[Group, ...] = ()
    counts: Counts = Counts()


class RegistryInUse(msgspec.Struct, frozen=True):
    """One registry. `datasets` is None where they cannot be counted now.

    Attributes:
        signed: the user has pinned its root, so nothing unsigned of it is believed.
    """

    name: str
    url: str
    datasets: int | None
    signed: bool = False


class AddedRegistry(msgspec.Struct, frozen=True):
    """A registry that is in the user's configuration now.

    Attributes:
        root: the sha256 of its pinned root; empty where it is not signed.
        first_use: nobody but its server has vouched for that root.
    """

    name: str
    url: str
    root: str = ""
    first_use: bool = False


class Change(msgspec.Struct, frozen=True):
    """The version of a dataset that was locked, and that is now; None where there is none."""

    name: str
    before: str | None
    after: str | None


class Relocked(_Readable, msgspec.Struct, frozen=True):
    """A project's lock file, and what has changed in it."""

    path: str
    changed: tuple[Change, ...]


class RemoteStatus(msgspec.Struct, frozen=True):
    """Whether the remote answers, and whether it takes files."""

    url: str
    reachable: bool
    writable: bool


class Pushed(msgspec.Struct, frozen=True):
    """Files that were written to the remote, and that it had already.

    Attributes:
        bytes: of those that were written.
    """

    uploaded: int
    skipped: int
    bytes: int


class RemotePruned(msgspec.Struct, frozen=True):
    """Files that were removed from the remote, and their bytes."""

    removed: int
    bytes: int


class PublishedChange(msgspec.Struct, frozen=True):
    """One thing that publishing changes at a destination.

    Attributes:
        kind: "upload", "registry", "version", "current" (which version is), "other name".
        size: bytes of an upload; None where nobody knows, and of all else.
        new: there was nothing in its place.
    """

    kind: str
    name: str
    size: int | None = None
    new: bool = True


class Publication(_Readable, msgspec.Struct, frozen=True):
    """What publishing puts at a destination, or has put there.

    Attributes:
        uploaded: files of data that are put there.
        skipped: those that are there already.
        bytes: of those that are put there.
        published: versions that are new there, or say something else, as "name@version".
        changes: all of it, in order.
    """

    url: str
    uploaded: int
    skipped: int
    bytes: int
    published: tuple[str, ...]
    changes: tuple[PublishedChange, ...]


class Check(msgspec.Struct, frozen=True):
    """What `doctor` found out about one thing.

    Attributes:
        status: "ok", "warn" (it works, with something to know) or "fail".
        hint: what to do; empty where nothing need be done.
        code: exit code of the command line for a failure; 0 for what is none.
    """

    name: str
    status: str
    detail: str
    hint: str = ""
    code: int = 0


class Diagnosis(_Readable, msgspec.Struct, frozen=True):
    """All that `doctor` found out. `code` is that of the first failure."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """True if nothing fails; there may be warnings."""
        return not self.code

    @property
    def code(self) -> int:
        return next((each.code for each in self.checks if each.code), 0)
