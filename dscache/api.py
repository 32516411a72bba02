"""The functions of the package: the verbs of `Cache` on the configured cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Unpack

from dscache.asking import Patterns
from dscache.cache import Cache, FetchOptions
from dscache.events import Progress
from dscache.keeping import StrPath


def fetch(
    name: str,
    *,
    into: StrPath | None = None,
    link: str = "auto",
    files: Patterns | None = None,
    force: bool = False,
    refresh: bool = False,
    offline: bool | None = None,
    keep_archives: bool | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> Path:
    """The path of a dataset, downloaded and verified if it is not here yet; see `Cache.fetch`."""
    return (cache or Cache()).fetch(
        name,
        into=into,
        link=link,
        files=files,
        force=force,
        refresh=refresh,
        offline=offline,
        keep_archives=keep_archives,
        progress=progress,
    )


def fetch_many(
    names: Iterable[str], *, cache: Cache | None = None, **options: Unpack[FetchOptions]
) -> dict[str, Path]:
    """The paths of several datasets, through one pool; see `Cache.fetch_many`."""
    return (cache or Cache()).fetch_many(names, **options)


def retrieve(
    url: str,
    known_hash: str | None,
    *,
    fname: str | None = None,
    unpack: str | None = None,
    files: Patterns | None = None,
    into: StrPath | None = None,
    link: str = "auto",
    force: bool = False,
    offline: bool | None = None,
    keep_archives: bool | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> Path:
    """The path of one file by its URL; see `Cache.retrieve`."""
    return (cache or Cache()).retrieve(
        url,
        known_hash,
        fname=fname,
        unpack=unpack,
        files=files,
        into=into,
        link=link,
        force=force,
        offline=offline,
        keep_archives=keep_archives,
        progress=progress,
    )


def path(name: str, *, files: Patterns | None = None, cache: Cache | None = None) -> Path:
    """Where a dataset stands, without downloading; see `Cache.path`."""
    return (cache or Cache()).path(name, files=files)
