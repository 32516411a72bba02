"""What the verbs answer with: frozen values that hold facts, for programs and for tables."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dscache.errors import DscacheError
from dscache.model import Dataset


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


class Cached(msgspec.Struct, frozen=True):
    """One dataset in the cache. `last_used` is in seconds since 1970."""

    name: str
    version: str
    registry: str
    bytes: int
    last_used: float
    complete: bool


class Available(msgspec.Struct, frozen=True):
    """One dataset that a registry offers. `size` is None where the registry does not know it."""

    name: str
    version: str
    registry: str
    size: int | None
    summary: str
    cached: bool


class Removal(msgspec.Struct, frozen=True):
    """Something that may go: kind, name, bytes on the disk, why, and the sha256 of its blob."""

    kind: str
    name: str
    bytes: int
    reason: str
    sha256: str


class Kept(msgspec.Struct, frozen=True):
    """Something that would go, but for the reason given."""

    name: str
    bytes: int
    reason: str


class Plan(msgspec.Struct, frozen=True):
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


class Verified(msgspec.Struct, frozen=True):
    """How many files and views were looked at, how many are right, and which are not."""

    checked: int
    ok: int
    corrupt: tuple[Damage, ...]


class Info(msgspec.Struct, frozen=True):
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
    """What one cached dataset takes. `shared_bytes` of its bytes belong to others as well."""

    name: str
    version: str
    registry: str
    bytes: int
    shared_bytes: int
    last_used: float


class Usage(msgspec.Struct, frozen=True):
    """What the cache takes.

    Attributes:
        bytes: bytes of all blobs on disk.
        blobs: their number.
        saved_bytes: what the datasets would take on top if nothing were shared.
    """

    root: str
    bytes: int
    blobs: int
    saved_bytes: int
    datasets: tuple[DatasetUsage, ...]


class RegistryInUse(msgspec.Struct, frozen=True):
    """One registry. `datasets` is None where they cannot be counted now."""

    name: str
    url: str
    datasets: int | None
