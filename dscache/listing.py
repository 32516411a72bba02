"""Listing: the files of a dataset by name, without bringing them.

What a registry lists needs no file. What an archive holds is known once it has been unpacked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from dscache.bringing import Bringing
from dscache.call import Call
from dscache.errors import NotCached, NotFound
from dscache.hits import view_of
from dscache.layers import standing
from dscache.model import Artifact
from dscache.registry import manifest
from dscache.results import FileOf, Listing
from dscache.store import Store
from dscache.transfer.wants import Want
from dscache.view import Contents
from dscache.wishes import Wish


def files(call: Call, wish: Wish) -> Listing:
    """The files that a wish is for.

    Raises:
        NotFound: no file matches.
        NotCached: an archive has to be here first.
    """
    dataset = wish.dataset
    store, found = standing(call, wish)
    rows = _standing(store, wish) if found else _promised(call, wish)
    listed = tuple(sorted(rows, key=lambda row: row.path))
    if not listed:
        raise NotFound(f"no file of {dataset.reference} matches {' or '.join(wish.patterns)}")
    folder = Path(view_of(store, dataset)) if found else None
    return Listing(dataset.name, dataset.version, dataset.registry, folder, listed)


def _standing(store: Store, wish: Wish) -> Iterator[FileOf]:
    """What the record says; of links, those that lead to a file."""
    record = store.records.get(wish.dataset)
    if record is None:
        return
    folder = view_of(store, wish.dataset)
    wants = wish.wants if wish.patterns else None
    artifacts = {each.path for each in wish.dataset.artifacts if each.unpack} - set(wish.patterns)
    for item in Contents(store, record.files, record.trees, wants):
        if not wish.wants(item.path) or item.path in artifacts:
            continue
        if item.kind == "file":
            yield FileOf(item.path, item.size)
        elif item.kind == "link" and os.path.isfile(path := f"{folder}/{item.path}"):
            yield FileOf(item.path, os.path.getsize(path))


def _promised(call: Call, wish: Wish) -> Iterator[FileOf]:
    """What the registry says."""
    dataset = wish.dataset
    if dataset.manifest:
        local = dataset.base.startswith("file:")
        for each in manifest.read(
            _brought(call, dataset.manifest.file), dataset.manifest, local=local
        ):
            if wish.wants(each.path):
                yield FileOf(each.path, each.size)
        return
    for artifact in wish.needed():
        if not artifact.unpack:
            yield FileOf(artifact.path, artifact.size)
        elif artifact.single is not None:
            yield FileOf(artifact.single, None)
        else:
            raise NotCached(
                f"{artifact.path} of {dataset.reference} is not unpacked, so nobody knows what it "
                "holds",
                hint=f"`dscache fetch {dataset.reference}` brings it",
                name=str(dataset.reference),
            )


def _brought(call: Call, artifact: Artifact) -> str:
    """Where the bytes of a manifest are; no dataset is made of it."""
    if blob := call.store.blobs.find(artifact.digests):
        return blob.path
    with closing(Bringing(call).deliver([Want(0, artifact)])) as deliveries:
        delivered = next(deliveries)
    if delivered.blob is None:
        raise delivered.error or RuntimeError("a manifest comes, or there is an error")
    return delivered.blob.path
