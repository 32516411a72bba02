"""What has to be signed anew when registry files are published: values in, files out.

It reads the destination through a function and writes nothing. The order of the files is what makes
publishing safe: each names only files before it, and `timestamp.json`, the last, makes all of them
count at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from securesystemslib.signer import Signer
from tuf.api.metadata import (
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from dscache.errors import IntegrityError
from dscache.signing import Renewal, chain, roots, signers, verdicts
from dscache.signing.chain import Kind, Read, Standing
from dscache.signing.keys import Keys
from dscache.signing.roles import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    TIMESTAMP_FILE,
    bin_prefix,
    bits_for,
    ends_soon,
    expiry,
    is_crowded,
    metadata_file,
    target_file,
)

_INDEX = "index.json"


def renewal(
    folder: str,
    keys: Keys,
    read: Read,
    changed: Mapping[str, bytes],
    last: bytes | None = None,
) -> Renewal:
    """What `dscache.signing.renewal` promises."""
    own = roots.all_of(folder)
    root = roots.decode(own[-1]).signed
    _refuse_expired(root)
    found = chain.standing(own, read)
    _refuse_rollback(found, last)
    draft = _Draft(found, root, signers.of_role(keys, root, TARGETS), read)
    draft.list_all({file: _target(file, data) for file, data in changed.items()})
    files = [
        *draft.copies(changed),
        *draft.signed_lists(),
        *draft.signed_snapshot(),
        *(
            (metadata_file(ROOT, number), data)
            for number, data in enumerate(own, 1)
            if number > (found.roots if found else 0)
        ),
        draft.signed_timestamp(),
    ]
    return Renewal(tuple(files), tuple(draft.obsolete()), tuple(_notices(root)))


def listed(folder: str, read: Read) -> dict[str, str]:
    """What `dscache.signing.listed` promises."""
    found = chain.standing(roots.all_of(folder), read)
    if found is None:
        return {}
    lists = (found.list_of(role).targets for role in found.roles())
    return {file: _sha256(target) for each in lists for file, target in each.items()}


def signed_as(folder: str, read: Read, file: str) -> str:
    """What `dscache.signing.signed_as` promises."""
    found = chain.standing(roots.all_of(folder), read)
    target = found.list_of(found.role_of(file)).targets.get(file) if found else None
    return _sha256(target) if target else ""


class _Draft(msgspec.Struct):
    """The next state of a destination in the making."""

    found: Standing | None
    root: Root
    signer: Signer
    read: Read
    bins: SuccinctRoles | None = None
    #: Lists that are signed anew, by role.
    lists: dict[str, dict[str, TargetFile]] = msgspec.field(default_factory=dict)
    new: dict[str, TargetFile] = msgspec.field(default_factory=dict)
    versions: dict[str, int] = msgspec.field(default_factory=dict)
    snapshot: int = 0

    def list_all(self, changed: Mapping[str, TargetFile]) -> None:
        """Put the files that are not signed as they are into the lists to be signed."""
        if self.found is None:
            self.new = dict(changed)
            self._divide(self.new)
            return
        self.bins = self.found.bins
        lists: dict[str, dict[str, TargetFile]] = {}
        for file, target in changed.items():
            role = self.found.role_of(file)
            if role not in lists:
                lists[role] = dict(self.found.list_of(role).targets)
            known = lists[role].get(file)
            if known is None or _sha256(known) != _sha256(target):
                self.new[file] = target
                lists[role][file] = target
        touched = {self.found.role_of(file) for file in self.new}
        self.lists = {role: files for role, files in lists.items() if role in touched}
        old = ends_soon(TARGETS, self.found.targets.expires)
        if old or self._has_other_keys() or self._is_crowded():
            self._divide(dict(self._everything(lists)))

    def copies(self, changed: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """The files as they were signed, under names by which they can be told apart."""
        for file in sorted(self.new):
            yield target_file(_sha256(self.new[file]), file), changed[file]

    def signed_lists(self) -> Iterator[tuple[str, bytes]]:
        """The metadata of all roles that list files, as far as it changes."""
        for role in sorted(self.lists, key=lambda role: (role == TARGETS, role)):
            self.versions[role] = version = self._free(role)
            found = Targets(version=version, expires=expiry(TARGETS), targets=self.lists[role])
            if role == TARGETS and self.bins:
                found.delegations = Delegations(self._online(), succinct_roles=self.bins)
            yield metadata_file(role, version), self._sign(found)

    def signed_snapshot(self) -> Iterator[tuple[str, bytes]]:
        """The list of versions, if one of them changes or it ends soon."""
        if self.found and not self.versions and not self._renews_snapshot():
            self.snapshot = self.found.snapshot.version
            return
        meta = dict(self.found.snapshot.meta) if self.found else {}
        meta |= {f"{role}.json": MetaFile(version) for role, version in self.versions.items()}
        self.snapshot = self._free(SNAPSHOT)
        made = Snapshot(version=self.snapshot, expires=expiry(SNAPSHOT), meta=meta)
        yield metadata_file(SNAPSHOT, self.snapshot), self._sign(made)

    def signed_timestamp(self) -> tuple[str, bytes]:
        """What makes all of it count."""
        version = self.found.timestamp.version + 1 if self.found else 1
        meta = MetaFile(self.snapshot)
        made = Timestamp(version=version, expires=expiry(TIMESTAMP), snapshot_meta=meta)
        return TIMESTAMP_FILE, self._sign(made)

    def obsolete(self) -> Iterator[str]:
        """The index before the previous one: they are large, and each publishing adds one."""
        if self.found is None:
            return
        role = self.found.role_of(_INDEX)
        earlier = self.found.earlier(role)
        past = earlier.targets.get(_INDEX) if earlier else None
        present = self.found.list_of(role).targets.get(_INDEX)
        if past and present:
            kept = {_sha256(present), _sha256(self.new.get(_INDEX, present))}
            if _sha256(past) not in kept:
                yield target_file(_sha256(past), _INDEX)

    def _divide(self, files: Mapping[str, TargetFile]) -> None:
        """Make all lists anew, in as many bins as there should be, and never fewer than before."""
        bits = max(bits_for(len(files)), self.bins.bit_length if self.bins else 0)
        if not bits:
            self.lists = {TARGETS: dict(files)}
            return
        self.bins = SuccinctRoles(list(self._online()), 1, bits, bin_prefix(bits))
        self.lists = {role: {} for role in (*self.bins.get_roles(), TARGETS)}
        for file, target in files.items():
            self.lists[self.bins.get_role_for_target(file)][file] = target

    def _everything(
        self, known: Mapping[str, dict[str, TargetFile]]
    ) -> Iterable[tuple[str, TargetFile]]:
        assert self.found is not None
        for role in self.found.roles():
            yield from (known.get(role) or self.found.list_of(role).targets).items()

    def _is_crowded(self) -> bool:
        sizes = [len(files) for role, files in self.lists.items()]
        bits = self.bins.bit_length if self.bins else 0
        return bool(sizes) and is_crowded(sum(sizes) // len(sizes), bits)

    def _has_other_keys(self) -> bool:
        """True if what stands there is signed by keys that the newest root does not name."""
        return self.found is not None and any(
            self.found.root.roles[role].keyids != self.root.roles[role].keyids
            for role in (TARGETS, SNAPSHOT, TIMESTAMP)
        )

    def _renews_snapshot(self) -> bool:
        return self.found is not None and ends_soon(SNAPSHOT, self.found.snapshot.expires)

    def _online(self) -> dict[str, Key]:
        return {keyid: self.root.keys[keyid] for keyid in self.root.roles[TARGETS].keyids}

    def _free(self, role: str) -> int:
        """The next version of a role, past what interrupted publishers have left."""
        known = self.found.snapshot.meta.get(f"{role}.json") if self.found else None
        version = known.version if known else 0
        if role == SNAPSHOT and self.found:
            version = self.found.snapshot.version
        version += 1
        while self.read(metadata_file(role, version)) is not None:
            version += 1
        return version

    def _sign(self, signed: Kind) -> bytes:
        made = Metadata[Kind](signed)
        made.sign(self.signer)
        return made.to_bytes(JSONSerializer(compact=True))


def _refuse_expired(root: Root) -> None:
    if root.is_expired():
        raise IntegrityError(
            f"the registry's root has expired on {root.expires:%Y-%m-%d}",
            hint="`dscache registry rotate DIR` makes a new one, with the root's key",
        )


def _refuse_rollback(found: Standing | None, last: bytes | None) -> None:
    if last is None:
        return
    known = Metadata[Timestamp].from_bytes(last).signed
    if found is None:
        raise verdicts.missing(TIMESTAMP_FILE)
    if found.timestamp.version < known.version:
        happened = f"it is version {found.timestamp.version}, and {known.version} was published"
        raise verdicts.broken(TIMESTAMP_FILE, "rollback", happened)


def _notices(root: Root) -> Iterator[str]:
    if ends_soon(ROOT, root.expires):
        yield (
            f"the registry's root is good until {root.expires:%Y-%m-%d}; nobody can read the "
            "registry afterwards, so run `dscache registry rotate DIR` and publish before"
        )


def _target(file: str, data: bytes) -> TargetFile:
    return TargetFile.from_data(file, data, ["sha256"])


def _sha256(target: TargetFile) -> str:
    return target.hashes["sha256"]
