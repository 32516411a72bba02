"""The bytes that a registry holds itself, under `blobs/`: taking them in, and finding faults.

The layout is that of the cache's store, so that either can be copied from the other.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator
from hashlib import sha256

import msgspec

from dscache import filesystem
from dscache.digest import Digest, sums_of

FOLDER = "blobs"

_CHUNK = 8 << 20
_FILE = re.compile(r"blobs/sha256/([0-9a-f]{2})/([0-9a-f]{62})")


def file(hex_digest: str, algorithm: str = "sha256") -> str:
    """Where the bytes are, relative to the registry, or to a remote."""
    return f"{FOLDER}/{algorithm}/{hex_digest[:2]}/{hex_digest[2:]}"


class Added(msgspec.Struct, frozen=True):
    """Bytes that a registry holds now. `is_new`: it did not before."""

    size: int
    sha256: str
    is_new: bool


def add(registry: str, path: str) -> Added:
    """Copy a file into a registry, hashed on the way.

    Raises:
        OSError: the file cannot be read, or the registry's disk does not take it.
    """
    temporary = f"{registry}/{FOLDER}/{secrets.token_hex(8)}.tmp"
    filesystem.make_folder(f"{registry}/{FOLDER}")
    with filesystem.created(temporary) as fd:
        size, digest = _copy(path, fd)
    target = f"{registry}/{file(digest)}"
    is_new = not os.path.exists(target)
    try:
        filesystem.make_folder(os.path.dirname(target))
        filesystem.rename(temporary, target)
    except OSError:
        filesystem.drop(temporary)
        raise
    filesystem.sync_path(os.path.dirname(target))
    return Added(size, digest, is_new)


def _copy(path: str, fd: int) -> tuple[int, str]:
    digest, size = sha256(), 0
    with open(path, "rb", buffering=0) as reader:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            size += filesystem.write(fd, [chunk], size)
    filesystem.sync(fd)
    return size, digest.hexdigest()


def fault(registry: str, digests: Iterable[Digest], size: int | None) -> str:
    """What is wrong with the bytes that an entry wants to be here; empty if nothing is."""
    wanted = tuple(digests)
    name = _name(wanted)
    path = f"{registry}/{file(name)}"
    try:
        found = os.path.getsize(path)
        if size is not None and found != size:
            return f"{file(name)} has {found} bytes, not {size}"
        wrong = sums_of(path, [each.algorithm for each in wanted]).mismatch(wanted)
    except OSError as error:
        return f"{file(name)}: {error.strerror}"
    return f"{file(name)} is not {wrong}" if wrong else ""


def absence(registry: str, digests: Iterable[Digest]) -> str:
    """As `fault`, if it is only that the bytes are not there."""
    name = _name(digests)
    return "" if os.path.isfile(f"{registry}/{file(name)}") else f"{file(name)} is not there"


def _name(digests: Iterable[Digest]) -> str:
    return next(digest.hex for digest in digests if digest.algorithm == "sha256")


def strays(registry: str, wanted: Collection[str]) -> Iterator[str]:
    """Files under `blobs/`, relative to the registry, that are none of the `wanted` sha256."""
    for folder, folders, names in os.walk(f"{registry}/{FOLDER}"):
        folders.sort()
        for name in sorted(names):
            path = os.path.relpath(f"{folder}/{name}", registry).replace(os.sep, "/")
            known = _FILE.fullmatch(path)
            if known is None or known[1] + known[2] not in wanted:
                yield path
