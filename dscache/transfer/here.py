"""What of an artifact is in the store already."""

from __future__ import annotations

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
