"""What is signed at a registry's destination now, verified from the author's own roots downwards.

Each piece is verified when it is read: signatures, the version that the piece above names, and that
it is what its name says. Whether it has expired does not matter here: it is to be renewed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tuf.api.metadata import Metadata, Root, Snapshot, SuccinctRoles, Targets, Timestamp

from dscache.errors import IntegrityError
from dscache.signing import roots, verdicts
from dscache.signing.roles import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    TIMESTAMP_FILE,
    metadata_file,
)

Read = Callable[[str], bytes | None]
Kind = TypeVar("Kind", Timestamp, Snapshot, Targets)


class Standing:
    """The present state of a destination.

    Attributes:
        root: the newest root by which it is signed.
        roots: how many of the author's roots are there.
    """

    def __init__(self, own: Sequence[bytes], read: Read) -> None:
        """Read it, but for the bins.

        Args:
            own: the author's roots, from version 1 on.
            read: a file of the destination, or None if there is none.

        Raises:
            IntegrityError: it is not what the author's keys have signed.
        """
        self._read = read
        self._lists: dict[str, Targets] = {}
        self.roots = _published(own, read)
        self.root, self.timestamp = _timestamp(own[: self.roots], _needed(read, TIMESTAMP_FILE))
        version = self.timestamp.snapshot_meta.version
        self.snapshot = self._load(Snapshot, self.root, SNAPSHOT, version)
        self.targets = self._listed(self.root, TARGETS)

    @property
    def bins(self) -> SuccinctRoles | None:
        """How the files are divided; None if they are not."""
        delegations = self.targets.delegations
        return delegations.succinct_roles if delegations else None

    def role_of(self, file: str) -> str:
        """The role that lists a registry file, if any does."""
        return self.bins.get_role_for_target(file) if self.bins else TARGETS

    def roles(self) -> list[str]:
        """All roles that list files."""
        return list(self.bins.get_roles()) if self.bins else [TARGETS]

    def list_of(self, role: str) -> Targets:
        """What a role lists; raises as the constructor."""
        if role == TARGETS:
            return self.targets
        if role not in self._lists:
            self._lists[role] = self._listed(self.targets, role)
        return self._lists[role]

    def earlier(self, role: str) -> Targets | None:
        """What a role listed one version ago, as far as that can be told."""
        version = self.snapshot.meta[f"{role}.json"].version - 1
        if version < 1:
            return None
        try:
            signer = self.root if role == TARGETS else self.targets
            return self._load(Targets, signer, role, version)
        except IntegrityError:  # of other keys, or never there
            return None

    def _listed(self, signer: Root | Targets, role: str) -> Targets:
        known = self.snapshot.meta.get(f"{role}.json")
        if known is None:
            raise verdicts.missing(f"{role}.json")
        return self._load(Targets, signer, role, known.version)

    def _load(self, kind: type[Kind], signer: Root | Targets, role: str, version: int) -> Kind:
        file = metadata_file(role, version)
        found = _verified(kind, signer, role, _needed(self._read, file))
        if found.version != version:
            happened = f"it holds version {found.version}"
            raise verdicts.broken(file, "mix and match", happened)
        return found


def standing(own: Sequence[bytes], read: Read) -> Standing | None:
    """The state of a destination; None for one at which no publishing was ever finished.

    Raises:
        IntegrityError: it is not what the author's keys have signed.
    """
    return None if read(TIMESTAMP_FILE) is None else Standing(own, read)


def _published(own: Sequence[bytes], read: Read) -> int:
    """How many of the author's roots are at the destination."""
    if read(metadata_file(ROOT, len(own) + 1)) is not None:
        raise IntegrityError(
            f"the destination has a newer root than version {len(own)}, which is the newest here",
            hint="get the files metadata/*.root.json of whoever renewed the root; "
            "if nobody did, somebody else has its keys",
        )
    for version in range(len(own), 0, -1):
        found = read(metadata_file(ROOT, version))
        if found is not None:
            if found != own[version - 1]:
                file = metadata_file(ROOT, version)
                raise verdicts.broken(file, "wrong root", "it is not the author's")
            return version
    return 0


def _timestamp(own: Sequence[bytes], data: bytes) -> tuple[Root, Timestamp]:
    """The timestamp, and the newest root that vouches for it.

    That need not be the last: who was interrupted after publishing a root has not signed by it yet.
    """
    for each in reversed(own):
        root = roots.decode(each).signed
        try:
            return root, _verified(Timestamp, root, TIMESTAMP, data)
        except IntegrityError:
            if each is own[0]:
                raise
    raise verdicts.missing(metadata_file(ROOT, 1))


def _verified(kind: type[Kind], signer: Root | Targets, role: str, data: bytes) -> Kind:
    try:
        found = Metadata[Kind].from_bytes(data)
        signer.verify_delegate(role, found.signed_bytes, found.signatures)
    except verdicts.REFUSALS as error:
        raise verdicts.refusal(error, f"{role}.json of the destination") from error
    if not isinstance(found.signed, kind):
        raise verdicts.broken(f"{role}.json of the destination", "malformed", "it is another kind")
    return found.signed


def _needed(read: Read, file: str) -> bytes:
    data = read(file)
    if data is None:
        raise verdicts.missing(file)
    return data
