"""Pooch's manager and its functions, with files that come from the cache.

They are Pooch's own but for how a file comes to its name, which `arriving` knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pooch import Pooch as PlainPooch
from pooch import create as plain_create
from pooch import os_cache
from pooch import retrieve as plain_retrieve
from pooch.core import download_action, stream_download
from pooch.downloaders import choose_downloader
from pooch.utils import cache_location, make_local_storage, unique_file_name

from dscache import Cache
from dscache.errors import UnsafeError
from dscache.integrations.pooch.arriving import Wanted, arrive, bring_together, downloader_for, look
from dscache.integrations.pooch.processors import processed
from dscache.integrations.pooch.talk import Progressbar

__all__ = [
    "Pooch",
    "choose_downloader",
    "create",
    "download_action",
    "retrieve",
    "stream_download",
]

StrPath = str | os.PathLike[str]


class Pooch(PlainPooch):  # type: ignore[misc]  # Pooch has no types
    """As `pooch.Pooch`; its files come from the cache, and are links to it.

    Args:
        registry: is copied: what `load_registry` adds, the caller's own does not get.
        retry_if_failed: so often it is tried again, after what the engine tries by itself.
    """

    def __init__(
        self,
        path: StrPath,
        base_url: str,
        registry: Mapping[str, str] | None = None,
        urls: Mapping[str, str] | None = None,
        retry_if_failed: int = 0,
        allow_updates: bool = True,
    ) -> None:
        super().__init__(path, base_url, dict(registry or {}), urls, retry_if_failed, allow_updates)

    def fetch(
        self,
        fname: str,
        processor: Any = None,
        downloader: Any = None,
        progressbar: Progressbar = False,
    ) -> Any:
        """As `pooch.Pooch.fetch`.

        Args:
            downloader: what brings the file if the cache has not got it; default: the engine.

        Raises:
            ValueError: it is not in the registry, would be updated, which is not allowed, or has
                another hash (IntegrityError); or its name leads out of the folder (UnsafeError).
            OSError: it cannot be downloaded (TransferError) or stored (StorageError).
            NotCached: the cache has not got it, and this is offline mode.
        """
        wanted = self._wanted(fname, super().fetch)
        cache = Cache()
        action, verb = look(cache, wanted)
        if action == "update" and not self.allow_updates:
            raise ValueError(f"{fname} needs to update {wanted.path} but updates are disallowed.")
        if action != "fetch":
            make_local_storage(str(self.abspath))
            arrive(cache, wanted, verb, downloader, progressbar)
        return processed(processor, wanted, action, self)

    def fetch_many(self, fnames: Iterable[str] | None = None) -> dict[str, str]:
        """`fetch` for several files, which are downloaded together; Pooch itself has no such thing.

        Args:
            fnames: default: all files of the registry.

        Raises:
            As `fetch`, for the first that fails; the others are in the cache then.
        """
        names = self.registry_files if fnames is None else list(fnames)
        cache, plain = Cache(), super().fetch
        every = [self._wanted(name, plain) for name in names]
        bring_together(cache, [each for each in every if look(cache, each)[0] != "fetch"])
        return {name: self.fetch(name) for name in names}

    def is_available(self, fname: str, downloader: Any = None) -> bool:
        """As `pooch.Pooch.is_available`, asked as a download would be: with credentials."""
        chosen = downloader or downloader_for(self.get_url(fname), False)
        available: bool = super().is_available(fname, chosen)
        return available

    def _wanted(self, fname: str, plain: Any) -> Wanted:
        url = self.get_url(fname)
        return Wanted(
            url=url,
            known_hash=self.registry[fname],
            path=_below(self.abspath, fname),
            told=f"file '{fname}' from '{url}' to '{self.abspath}'.",
            retries=self.retry_if_failed,
            plainly=partial(plain, fname, None),
        )


def create(
    path: StrPath | list[StrPath] | tuple[StrPath, ...],
    base_url: str,
    version: str | None = None,
    version_dev: str = "master",
    env: str | None = None,
    registry: Mapping[str, str] | None = None,
    urls: Mapping[str, str] | None = None,
    retry_if_failed: int = 0,
    allow_updates: bool | str = True,
) -> Pooch:
    """As `pooch.create`."""
    made = plain_create(
        path,
        base_url,
        version=version,
        version_dev=version_dev,
        env=env,
        registry=registry,
        urls=urls,
        retry_if_failed=retry_if_failed,
        allow_updates=allow_updates,
    )
    return Pooch(
        made.path,
        made.base_url,
        made.registry,
        made.urls,
        made.retry_if_failed,
        made.allow_updates,
    )


def retrieve(
    url: str,
    known_hash: str | None = None,
    fname: str | None = None,
    path: StrPath | None = None,
    processor: Any = None,
    downloader: Any = None,
    progressbar: Progressbar = False,
) -> Any:
    """As `pooch.retrieve`; raises as `Pooch.fetch` does.

    Without a known hash nothing is looked for in the cache: what does not stand in the folder is
    downloaded anew, since the URL may lead to something else today.
    """
    folder = cache_location(os_cache("pooch") if path is None else path)
    name = unique_file_name(url) if fname is None else fname
    full = _below(folder.resolve(), name)
    wanted = Wanted(
        url=url,
        known_hash=known_hash,
        path=full,
        told=f"data from '{url}' to file '{full}'.",
        plainly=partial(plain_retrieve, url, known_hash, name, folder, None),
    )
    cache = Cache()
    action, verb = look(cache, wanted)
    if action != "fetch":
        make_local_storage(str(folder))
        arrive(cache, wanted, verb, downloader, progressbar)
    return processed(processor, wanted, action, None)


def _below(folder: Path, name: str) -> Path:
    """Where a file stands.

    Raises:
        UnsafeError: not in the folder.
    """
    relative = Path(name)
    if relative.anchor or ".." in relative.parts:
        raise UnsafeError(f"file {name!r} would not stand in {folder}", path=name)
    return folder / relative
