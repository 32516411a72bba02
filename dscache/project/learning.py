"""What a lock learns: the size and sha256 that a registry did not know, and what must not change.

The identity of a dataset is made of the hashes that its registry gives, so what is learned stands
beside these, as one more checksum. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from dscache.digest import Digest
from dscache.project.lockfile import Line
from dscache.registry.tables import ArtifactEntry, Entry, ManifestEntry

Each = TypeVar("Each", ArtifactEntry, ManifestEntry)

#: sha256 in hex and size by path, as far as somebody knows them.
Facts = Mapping[str, tuple[str | None, int | None]]


def facts_of(entry: Entry) -> Facts:
    """What an entry knows."""
    return {each.path: (_digests(each).get("sha256"), each.size) for each in _files(entry)}


def wants_facts(entry: Entry) -> bool:
    """True if there is something to learn."""
    return any(each.size is None or "sha256" not in _digests(each) for each in _files(entry))


def taught(line: Line, facts: Facts) -> Line:
    """The line, and what it did not know."""
    entry = line.entry
    artifacts = [_taught(each, facts) for each in entry.artifacts]
    manifest = _taught(entry.manifest, facts) if entry.manifest else None
    return replace(line, entry=replace(entry, artifacts=artifacts, manifest=manifest))


def contradict(one: Entry, other: Entry) -> bool:
    """True if by hash or size some file of both is not the same; of one that one lacks, too."""
    if bool(one.manifest) != bool(other.manifest):
        return True
    files = {each.path: each for each in _files(one)}
    others = {each.path: each for each in _files(other)}
    return files.keys() != others.keys() or any(
        _differ(each, others[path]) for path, each in files.items()
    )


def _differ(one: ArtifactEntry | ManifestEntry, other: ArtifactEntry | ManifestEntry) -> bool:
    if None not in (one.size, other.size) and one.size != other.size:
        return True
    known = _digests(other)
    return any(known.get(algorithm, value) != value for algorithm, value in _digests(one).items())


def _files(entry: Entry) -> list[ArtifactEntry] | list[ManifestEntry]:
    return [entry.manifest] if entry.manifest else entry.artifacts


def _digests(each: ArtifactEntry | ManifestEntry) -> dict[str, str]:
    return {
        digest.algorithm: digest.hex for digest in map(Digest.parse, (each.hash, *each.checksums))
    }


def _taught(each: Each, facts: Facts) -> Each:
    sha256, size = facts.get(each.path, (None, None))
    checksums: list[str] = each.checksums
    if sha256 and "sha256" not in _digests(each):
        checksums = [*checksums, f"sha256:{sha256}"]
    return replace(each, checksums=checksums, size=size if each.size is None else each.size)
