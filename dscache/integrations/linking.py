"""Linking: a file of the cache at the name that another library has chosen for it.

What stands there is a link, so that one look tells a hit: it leads to the bytes that the cache has
verified. Where no link can be had it is a copy, which is compared (xxh3_128) each time.
"""

from __future__ import annotations

import os
from pathlib import Path

from dscache import Cache
from dscache.errors import IntegrityError, NotCached, StorageError
from dscache.events import Emit, Event, Placed, to_log

#: No reflink, which nothing tells from a file of the user's own without reading it.
_MODES = ("hardlink", "symlink", "copy")


def bring(
    cache: Cache, url: str, known_hash: str | None, path: Path, *, progress: Emit = to_log
) -> str:
    """Put the file of a URL at `path`; it is downloaded and verified if it is not in the cache.

    What stands at `path` and has the known hash is taken into the cache, and not downloaded again.
    What has another is replaced.

    Args:
        known_hash: `alg:hex`, or sha256 in hex; None accepts whatever comes.
        path: the file; folders above it are made.
        progress: called with each event of `dscache.events`; default: notices are logged.

    Returns:
        "cached" (it stood in the cache), "linked" (the cache had the bytes, under another name or
        because they stood at `path`) or "downloaded".

    Raises:
        TransferError: every source failed, retries included; what came is kept.
        IntegrityError: wrong bytes from every source.
        StorageError: the disk does not take it.
        NotCached: it is not here, and this is offline mode.
    """
    if os.path.lexists(path):
        if is_linked(cache, url, known_hash, path):
            return "cached"
        if known_hash:
            _adopt(cache, known_hash, path)
    for mode in _MODES:
        found = cache.retrieve_all(
            url,
            known_hash,
            fname=path.name,
            into=path.parent,
            link=mode,
            force=True,
            progress=_unplaced(progress),
        )
        if not isinstance(found.error, StorageError) or "mode" not in found.error.facts:
            break
    found.unwrap()
    return found.status


def is_linked(cache: Cache, url: str, known_hash: str | None, path: Path) -> bool:
    """True if what stands at `path` leads to the verified bytes of that URL in the cache."""
    found = cache.retrieve_all(url, known_hash, fname=path.name, offline=True, progress=_silent)
    if found.error is not None:
        if not isinstance(found.error, NotCached):
            raise found.error
        return False
    try:
        return os.path.samefile(path, found.unwrap())
    except FileNotFoundError:  # a link that leads nowhere
        return False


def _adopt(cache: Cache, known_hash: str, path: Path) -> None:
    """Take what stands at `path` into the cache, if it is the right file."""
    try:
        cache.retrieve(os.fspath(path), known_hash, fname=path.name, progress=_silent)
    except (IntegrityError, NotCached):
        pass


def _silent(_event: Event) -> None:
    pass


def _unplaced(progress: Emit) -> Emit:
    """Where a file is placed is what was asked for, and no news."""

    def emit(event: Event) -> None:
        if not isinstance(event, Placed):
            progress(event)

    return emit
