"""What a call wants, the name under which it is claimed and kept, and what comes of it. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from dscache.digest import Digest
from dscache.errors import DscacheError
from dscache.model import Artifact
from dscache.store import SMALL, Blob, key_of
from dscache.store.trees import Tree


class Want(msgspec.Struct, frozen=True):
    """One artifact of one of the fetches of a call; `fetch` is the caller's number for it."""

    fetch: int
    artifact: Artifact


class Delivered(msgspec.Struct, frozen=True):
    """A want that came true, or the error that says why not.

    Attributes:
        blob: the file; None for an archive of which only the tree is here.
        tree: what the archive holds, if it is to be unpacked.
        downloaded: bytes that crossed the network.
        resumed: bytes that earlier attempts had left.
        is_new: the blob was not in the store before.
        is_from_origin: the bytes came from where the registry says, not from the remote.
    """

    want: Want
    blob: Blob | None = None
    tree: Tree | None = None
    error: DscacheError | None = None
    downloaded: int = 0
    resumed: int = 0
    is_new: bool = False
    is_from_origin: bool = False


def is_small(artifact: Artifact) -> bool:
    """True for files that need neither lock nor journal."""
    return artifact.size is not None and artifact.size <= SMALL


def claim_key(artifact: Artifact) -> str:
    """The name of its lock and of its part: its identity, or its sources where it has none."""
    identity = artifact.identity
    if identity:
        return key_of(identity)
    sources = "\n".join(artifact.urls).encode()
    return key_of(Digest("sha256", hashlib.sha256(sources).hexdigest()))
