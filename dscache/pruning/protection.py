"""Protection: why something must stay: pins, projects, folders, living processes.

Read from the store at one moment; who removes something reads it again after having said so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

import msgspec

from dscache import disk
from dscache.digest import Digest
from dscache.errors import StorageError, UsageError
from dscache.pruning.policy import Limits
from dscache.quantities import show_duration
from dscache.store import Store
from dscache.store.leases import Held
from dscache.store.roots import HARDLINKED, Root


class Protection:
    """What protects what.

    Attributes:
        broken: why nothing at all may go, where it cannot be told what must stay; else "".
        expired: projects and folders that are gone for longer than the grace.
        missing: those that are gone, as they are to be noted.
    """

    def __init__(self, store: Store, limits: Limits, now: float) -> None:
        self.broken = ""
        self.expired: list[Root] = []
        self.missing: list[tuple[Root, Root]] = []
        self._pins: set[str] = set()
        self._roots: dict[str, list[str]] = {}
        self._linked: dict[str, list[str]] = {}
        self._held: list[Held] = []
        try:
            with disk.storage_errors("what is needed of the cache cannot be read"):
                self._pins |= store.roots.pins()
                for root in store.roots.all():
                    self._take(root, now, limits.root_grace)
                self._held += store.leases.living(now, limits.lease_ttl)
        except StorageError as error:
            self.broken = str(error)
        self._digests = {
            sha256: held.holder for held in self._held for sha256 in _known(store, held.digests)
        }

    def __call__(self, mark: str) -> str:
        """Why a dataset must stay; "" where nothing keeps it."""
        return self.broken or ", ".join(self.holders(mark))

    def holders(self, mark: str) -> list[str]:
        """All that keeps a dataset, in words."""
        pinned = ["it is pinned"] if mark in self._pins else []
        roots = [f"{each} needs it" for each in self._roots.get(mark, ())]
        return pinned + roots + [f"{each.holder} uses it" for each in self._users(mark)]

    def is_pinned(self, mark: str) -> bool:
        """True if a user has pinned it."""
        return mark in self._pins

    def projects(self, mark: str) -> list[str]:
        """The projects and folders that need a dataset."""
        return self._roots.get(mark, [])

    def bringer(self, sha256: str) -> str:
        """Who is just bringing a blob, or what is unpacked of it; "" if nobody is."""
        return self._digests.get(sha256, "")

    def is_in_work(self, registry: str, name: str) -> bool:
        """True if some process uses a version of that dataset, or may do so."""
        start = f"{registry}/{name}@"
        return bool(self.broken) or any(
            mark.startswith(start) for held in self._held for mark in held.marks
        )

    def linked_from(self, mark: str) -> list[str]:
        """Folders of users with hard links to the files of a dataset."""
        return self._linked.get(mark, [])

    def _users(self, mark: str) -> Iterator[Held]:
        return (held for held in self._held if mark in held.marks)

    def _take(self, root: Root, now: float, grace: float) -> None:
        noted = self._noted(root, now)
        if noted != root:
            self.missing.append((noted, root))
        gone_for = 0.0 if noted.missing_since is None else now - noted.missing_since
        if gone_for > (grace if root.protects else 0):
            self.expired.append(root)
            return
        gone = f", gone for {show_duration(gone_for)}," if noted.missing_since is not None else ""
        places = self._linked if root.kind == HARDLINKED else self._roots
        for mark in root.marks:
            places.setdefault(mark, []).append(f"{root}{gone}")

    def _noted(self, root: Root, now: float) -> Root:
        """The root with the time since which its path is gone."""
        if os.path.lexists(root.path):
            return msgspec.structs.replace(root, missing_since=None)
        since = now if root.missing_since is None else min(root.missing_since, now)
        return msgspec.structs.replace(root, missing_since=since)


def _known(store: Store, digests: Iterable[str]) -> Iterator[str]:
    """The sha256 of each, as far as it is known."""
    for text in digests:
        with suppress(UsageError):  # a line that is just being written; nobody goes by it yet
            if sha256 := store.blobs.known_as(Digest.parse(text)):
                yield sha256
