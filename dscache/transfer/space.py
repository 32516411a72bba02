"""Room on the disk: looked at before a download, and again when it was too little."""

from __future__ import annotations

from collections.abc import Iterable

from dscache import disk
from dscache.errors import StorageError
from dscache.model import Artifact
from dscache.quantities import show_size
from dscache.store import Store
from dscache.transfer.here import tree_of
from dscache.transfer.wants import claim_key, is_small


def space_needed(store: Store, artifacts: Iterable[Artifact]) -> int:
    """Bytes that downloading what is missing will take, as far as sizes are known.

    Where all would fit even if nothing were here, nothing is looked up.
    """
    sized = [each for each in artifacts if each.size]
    most = sum(each.size or 0 for each in sized)
    if most <= disk.free_space(store.layout.root):
        return most
    parts = store.parts()
    needed = 0
    for each in sized:
        identity = each.identity
        is_here = identity and store.blobs.where(identity)
        if not (is_here or (each.unpack and tree_of(store, each))):
            has = 0 if is_small(each) else parts.room(claim_key(each))
            needed += max(0, (each.size or 0) - has)
    return needed


def check_space(store: Store, needed: int) -> None:
    """Make sure that `needed` bytes fit before anything is downloaded.

    Raises:
        StorageError: they do not; says how much is missing, and what could be given up for it.
    """
    if needed > disk.free_space(store.layout.root):
        raise too_little(store, needed)


def too_little(store: Store, needed: int, kept: int = 0) -> StorageError:
    """The error for a disk on which `needed` more bytes do not fit.

    Args:
        kept: bytes of unfinished downloads that are here and stay.
    """
    free = disk.free_space(store.layout.root)
    prunable = _prunable(store)
    missing = f"free {show_size(needed - free)}" if needed > free else "free some space"
    keeps = f"{show_size(kept)} have arrived and are kept; " if kept else ""
    others = f" (`dscache prune --all` frees up to {show_size(prunable)})"
    return StorageError(
        f"{show_size(needed)} {'more ' if kept else ''}are needed, but only {show_size(free)} are "
        f"free in {store.layout.root}",
        hint=f"{keeps}{missing}{others if prunable else ''}, "
        "or set DSCACHE_DIR to another disk, and run the same command again",
        needed=needed,
        free=free,
        prunable=prunable,
        bytes_kept=kept,
    )


def _prunable(store: Store) -> int:
    """Bytes of the datasets in the cache, each file counted once."""
    try:
        files = {file.sha256: file.size for record in store.records.all() for file in record.files}
    except StorageError:  # a record that cannot be read: nothing is promised
        return 0
    return sum(files.values())
