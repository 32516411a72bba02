"""What of an artifact is in the store already, or in a layer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from dscache.model import Artifact
from dscache.store import Store
from dscache.store.trees import Tree


def tree_of(store: Store, artifact: Artifact) -> Tree | None:
    """The tree of an artifact that unpacks, if it is here; its archive may be gone.

    Raises:
        IntegrityError, StorageError: as `Blobs.find`.
    """
    sha256 = store.blobs.known(artifact.digests)
    if sha256 is None:  # what is here may have the hashes that nobody has looked at
        blob = store.blobs.find(artifact.digests)
        sha256 = blob.sha256 if blob else None
    return store.trees.find(sha256, artifact.recipe) if sha256 else None


def is_here(store: Store, artifact: Artifact) -> bool:
    """True if nothing has to be downloaded for it. Raises as `tree_of`."""
    if artifact.unpack and tree_of(store, artifact):
        return True
    return store.blobs.find(artifact.digests) is not None


def lent(layers: Iterable[Store], artifact: Artifact) -> str | None:
    """The path of a file in a layer that should have the bytes of an artifact.

    Whether it has is seen when it is copied; so nothing is read here.
    """
    identity = artifact.identity
    if identity is None:
        return None
    for layer in layers:
        path = layer.blobs.where(identity)
        with suppress(OSError):  # removed just now
            if path and artifact.size in (None, os.path.getsize(path)):
                return path
    return None
