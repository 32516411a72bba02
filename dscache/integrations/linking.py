"""Linking: files of the cache at the names that another library has chosen for them.

What stands there is a link, so that one look tells a hit: it leads to the bytes that the cache has
verified. Where no link can be had it is a copy, which is compared (xxh3_128) each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from dscache import Cache
from dscache.errors import IntegrityError, NotCached, StorageError
from dscache.events import Emit, Event, Placed, to_log

Result = TypeVar("Result")

#: No reflink, which nothing tells from a file of the user's own without reading it.
_MODES = ("hardlink", "symlink", "copy")


def silent(_event: Event) -> None:
    """Hear an event and say nothing."""


def bring(
    cache: Cache,
    url: str,
    known_hash: str | None,
    path: Path,
    *,
    offline: bool | None = None,
    progress: Emit = to_log,
) -> str:
    """Put the file of a URL at `path`; it is downloaded and verified if it is not in the cache.

    What stands at `path` and has the known hash is taken into the cache, and not downloaded again.
    What has another is replaced.

    Args:
        known_hash: `alg:hex`, or sha256 in hex; None accepts whatever comes.
        path: the file; folders above it are made.
        offline: use no network; default: as configured.
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
        if known_hash and os.path.exists(path):  # no link that leads nowhere
            adopt(cache, known_hash, path)
    return place(cache, url, known_hash, path, offline=offline, progress=progress)


def place(
    cache: Cache,
    url: str,
    known_hash: str | None,
    path: Path,
    *,
    offline: bool | None = None,
    progress: Emit = to_log,
) -> str:
    """As `bring`, but whatever stands at `path` is replaced, without a look at it."""

    def retrieve(mode: str) -> str:
        found = cache.retrieve_all(
            url,
            known_hash,
            fname=path.name,
            into=path.parent,
            link=mode,
            force=True,
            offline=offline,
            progress=unplaced(progress),
        )
        found.unwrap()
        return found.status

    return _by_best_mode(retrieve)


def adopt(cache: Cache, known_hash: str, path: Path) -> None:
    """Take what stands at `path` into the cache, if it is the right file."""
    try:
        cache.retrieve(os.fspath(path), known_hash, fname=path.name, progress=silent)
    except (IntegrityError, NotCached):
        pass


def unpack(
    cache: Cache,
    archive: Path,
    known_hash: str,
    recipe: str,
    folder: Path,
    *,
    fname: str | None = None,
    files: Iterable[str] | None = None,
) -> None:
    """Put what an archive of this machine holds into a folder, unpacked once for all who ask.

    Files of the same names that stand there are replaced.

    Args:
        recipe: as `unpack` of `Cache.retrieve`.
        fname: what the archive counts as; of a compressed file the name without its suffix stands
            in the folder.
        files: patterns of the members that are wanted; default: all.

    Raises:
        NotFound: no member matches.
        IntegrityError: the archive is damaged, or has another hash.
        UnsafeError: a member would lead out of the folder.
        StorageError: the disk does not take it.
    """

    def retrieve(mode: str) -> None:
        cache.retrieve(
            os.fspath(archive),
            known_hash,
            fname=fname or archive.name,
            unpack=recipe,
            files=files,
            into=folder,
            link=mode,
            force=True,
            keep_archives=True,  # `archive` is a link to it
            progress=silent,
        )

    _by_best_mode(retrieve)


def is_linked(cache: Cache, url: str, known_hash: str | None, path: Path) -> bool:
    """True if what stands at `path` leads to the verified bytes of that URL in the cache."""
    found = cache.retrieve_all(url, known_hash, fname=path.name, offline=True, progress=silent)
    if found.error is not None:
        return False
    try:
        return os.path.samefile(path, found.unwrap())
    except FileNotFoundError:  # a link that leads nowhere
        return False


def _by_best_mode(retrieve: Callable[[str], Result]) -> Result:
    *better, last = _MODES
    for mode in better:
        try:
            return retrieve(mode)
        except StorageError as error:
            if "mode" not in error.facts:
                raise
    return retrieve(last)


def unplaced(progress: Emit) -> Emit:
    """Where a file is placed is what was asked for, and no news."""

    def emit(event: Event) -> None:
        if not isinstance(event, Placed):
            progress(event)

    return emit
