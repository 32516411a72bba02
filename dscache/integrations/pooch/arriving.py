"""Arriving: a file comes to the name that Pooch has for it.

As a link to the cache, which has the bytes or downloads them. What dscache cannot do goes Pooch's
own way, which is to download, to hash, and to move: without a known hash, with one that dscache
does not know, with a downloader of the caller. What came of that is taken into the cache as well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from pooch import file_hash, get_logger
from pooch.core import download_action

from dscache import Cache
from dscache.errors import (
    DscacheError,
    IntegrityError,
    InvalidFile,
    NotCached,
    TransferError,
    UsageError,
)
from dscache.events import Notice, to_log
from dscache.integrations import linking
from dscache.integrations.pooch.talk import Progressbar, Talk, as_pooch_says

#: Seconds between two attempts at most, as in Pooch; the first are 1, 2, …
_LONGEST_WAIT = 10


class Wanted(msgspec.Struct, frozen=True):
    """A file that Pooch speaks of.

    Attributes:
        path: where it has to stand.
        told: what Pooch's log says of it, after the verb.
        retries: so often it is tried again.
        plainly: brings it Pooch's own way, given a downloader and a progress bar.
    """

    url: str
    known_hash: str | None
    path: Path
    told: str
    plainly: Callable[[Any, Progressbar], object]
    retries: int = 0


def look(cache: Cache, wanted: Wanted) -> tuple[str, str]:
    """What has to be done, in Pooch's words: "fetch" (nothing), "download" or "update", and a verb.

    A link to the cache is not read. What else stands there is hashed, and if it is right, becomes
    such a link, so that it is hashed once only.
    """
    path = wanted.path
    if wanted.known_hash is None or not os.path.lexists(path):
        return _plain_look(wanted)
    try:
        if linking.is_linked(cache, wanted.url, wanted.known_hash, path):
            return "fetch", "Fetching"
    except DscacheError:  # not dscache's grammar, or no cache: then Pooch's word counts
        return _plain_look(wanted)
    action, verb = _plain_look(wanted)
    if action == "fetch" and os.access(path.parent, os.W_OK):
        _keep(cache, wanted)
    return action, verb


def arrive(
    cache: Cache, wanted: Wanted, verb: str, downloader: Any, progressbar: Progressbar
) -> None:
    """Bring a file to its name.

    Raises:
        TransferError, IntegrityError, StorageError, NotCached: as `Cache.retrieve`, in types that
            programs expect of Pooch; or what the caller's downloader raises.
    """
    if wanted.known_hash is not None:
        talk = Talk(verb, wanted.told, progressbar)
        try:
            _bring(cache, wanted, talk, is_here=downloader is not None)
        except NotCached:
            if downloader is None:  # offline mode
                raise
        except (UsageError, InvalidFile) as error:
            if not _is_of_pooch(error, wanted):
                raise
        else:
            return
        finally:
            talk.close()
    wanted.plainly(downloader or downloader_for(wanted.url, progressbar), progressbar)
    _keep(cache, wanted)


def bring_together(cache: Cache, files: Sequence[Wanted]) -> None:
    """Download files into the cache, all at once; what fails is for whoever asks for it next."""
    known = [(each.url, each.known_hash, each.path.name) for each in files if each.known_hash]
    if known:
        get_logger().info("Downloading %d files.", len(known))
        cache.retrieve_many(known)


def downloader_for(url: str, progressbar: Progressbar) -> Any:
    """The engine for what it downloads itself; None where Pooch chooses."""
    if not url.startswith(("https:", "http:")):
        return None
    from dscache import ParallelDownloader  # late: most files come by the cache

    engine = ParallelDownloader(progressbar=progressbar)

    def download(url: str, file: Any, manager: object, check_only: bool = False) -> bool | None:
        try:
            return engine(url, file, manager, check_only)
        except TransferError as error:
            raise as_pooch_says(error, url, None) from error

    return download


def _plain_look(wanted: Wanted) -> tuple[str, str]:
    action, verb = download_action(wanted.path, wanted.known_hash)
    return action, verb


def _bring(cache: Cache, wanted: Wanted, talk: Talk, *, is_here: bool) -> None:
    """As a link to the cache; with `is_here` only what needs no download.

    It is tried again as Pooch does it, whatever the engine has tried already.
    """
    for number in range(wanted.retries + 1):
        try:
            linking.place(
                cache,
                wanted.url,
                wanted.known_hash,
                wanted.path,
                offline=True if is_here else None,
                progress=talk,
            )
            talk.done()
            return
        except (TransferError, IntegrityError) as error:
            left = wanted.retries - number
            if not left:
                raise as_pooch_says(error, wanted.path.name, wanted.known_hash) from error
            get_logger().info(
                "Failed to download '%s'. Will attempt the download again %d more time%s.",
                wanted.path.name,
                left,
                "s" if left > 1 else "",
            )
            time.sleep(min(number + 1, _LONGEST_WAIT))


def _is_of_pooch(error: DscacheError, wanted: Wanted) -> bool:
    """True for a hash, a URL or a file name that is not in dscache's grammar."""
    return isinstance(error, UsageError) or error.facts.get("path") == wanted.path.name


def _keep(cache: Cache, wanted: Wanted) -> None:
    """Take what Pooch has found right into the cache; a link to it takes its place."""
    try:
        known = wanted.known_hash or _sha256_of(wanted.path)
        try:
            _link(cache, wanted, known)
        except UsageError:
            _link(cache, wanted, _sha256_of(wanted.path))
    except DscacheError as error:
        to_log(Notice(f"{wanted.path} is not shared by the cache: {error}"))


def _link(cache: Cache, wanted: Wanted, known_hash: str) -> None:
    path = wanted.path
    linking.adopt(cache, known_hash, path)
    linking.place(cache, wanted.url, known_hash, path, offline=True, progress=linking.silent)


def _sha256_of(path: Path) -> str:
    return f"sha256:{file_hash(path)}"
