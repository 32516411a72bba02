"""In which form an entry is published: what the registry holds the bytes of is a blob, and nothing
names a file of the author's machine. Pure.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterable
from typing import TypeVar

from msgspec import structs

from dscache.errors import InvalidFile
from dscache.model import version_order
from dscache.registry.entries import digests_of
from dscache.registry.rendering import render, with_key
from dscache.registry.rules import is_local_path, problems
from dscache.registry.tables import ArtifactEntry, Entry, ManifestEntry

Part = ArtifactEntry | ManifestEntry
Kind = TypeVar("Kind", ArtifactEntry, ManifestEntry)


def published(entry: Entry, held: Callable[[Part], str]) -> Entry:
    """The entry as readers get it.

    Args:
        held: the sha256 under which the registry will hold a part's bytes; empty if it will not.
    """
    return structs.replace(
        entry,
        artifacts=[_published(each, held(each)) for each in entry.artifacts],
        manifest=_published(entry.manifest, held(entry.manifest)) if entry.manifest else None,
    )


def refuse_unpublishable(entry: Entry, file: str) -> None:
    """Make sure that a published entry says nothing that only its author can follow.

    Raises:
        UnsafeError: it names a file of this machine.
        InvalidFile: it names a file that is not published with it, or breaks another rule.
    """
    for problem in problems(entry, local=False):
        raise problem.located(file)
    parts: list[Part] = [*entry.artifacts, *([entry.manifest] if entry.manifest else ())]
    bases = entry.manifest.base_urls if entry.manifest else []
    for url in (*bases, *(url for each in parts for url in each.urls)):
        if is_relative(url):
            raise InvalidFile(
                f"{file}: {url!r} is relative to the registry, and would not be published",
                hint="files that the registry is to hold go into blobs/, with `registry new`",
                file=file,
            )


def with_versions(entry: Entry, data: bytes, versions: Iterable[str]) -> tuple[Entry, bytes]:
    """A dataset's current entry, and its file, with the list of its versions."""
    listed = sorted(versions, key=version_order)
    entry = structs.replace(entry, versions=listed)
    return entry, with_key(data, "versions", listed) or render(entry)


def with_blobs_of(entry: Entry, known: Entry) -> Entry:
    """An entry that says of what stands at the destination already that it is there.

    Args:
        known: what is published now, of the same content.
    """
    there = {each.path: each for each in known.artifacts}
    manifest = entry.manifest
    if manifest and known.manifest:
        manifest = _with_blob_of(manifest, known.manifest)
    return structs.replace(
        entry,
        artifacts=[_with_blob_of(each, there[each.path]) for each in entry.artifacts],
        manifest=manifest,
    )


def sha256_of(each: Part) -> str:
    """The sha256 that a part is known to have, in hex, or nothing."""
    found = (digest.hex for digest in digests_of(each) if digest.algorithm == "sha256")
    return next(found, "")


def is_relative(url: str) -> bool:
    """True for the URL of a file in the registry itself."""
    return not urllib.parse.urlsplit(url).scheme and not is_local_path(url)


def _published(each: Kind, sha256: str) -> Kind:
    if not sha256:
        return each
    urls = [url for url in each.urls if _is_elsewhere(url)]
    return structs.replace(each, blob=True, urls=urls, checksums=_checksums(each, sha256))


def _with_blob_of(each: Kind, known: Kind) -> Kind:
    if each.blob or not known.blob:
        return each
    return structs.replace(each, blob=True, checksums=_checksums(each, sha256_of(known)))


def _checksums(each: Part, sha256: str) -> list[str]:
    """With the hash under which a blob lies, which the content identity does not depend on."""
    return each.checksums if sha256_of(each) else [*each.checksums, f"sha256:{sha256}"]


def _is_elsewhere(url: str) -> bool:
    scheme = urllib.parse.urlsplit(url).scheme.lower()
    return bool(scheme) and scheme != "file" and not is_local_path(url)
