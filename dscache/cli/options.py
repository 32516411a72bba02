"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from dscache import settings
from dscache.cache import Cache, FetchOptions
from dscache.errors import DscacheError
from dscache.settings import LINK_MODES

Function = TypeVar("Function", bound=Callable[..., Any])


def common(function: Function) -> Function:
    """`--cache-dir` and `--json`, which every command takes."""
    function = click.option("--json", "as_json", is_flag=True, help="One JSON document.")(function)
    where = click.option(
        "--cache-dir", metavar="DIR", help="The cache folder (default: as configured)."
    )
    return where(function)


class Downloading(NamedTuple):
    """What the options of a command that downloads come to."""

    cache: Cache
    placing: FetchOptions
    shows_progress: bool


def transfer(function: Callable[..., int]) -> Callable[..., int]:
    """The options of commands that download, handed over as one `downloading`."""

    @wraps(function)
    def command(
        *,
        into: str | None,
        link: str | None,
        jobs: str | None,
        limit_rate: str | None,
        offline: bool | None,
        force: bool,
        keep_archives: bool | None,
        no_progress: bool,
        cache_dir: str | None,
        **rest: Any,
    ) -> int:
        target = cache(
            cache_dir,
            jobs=jobs,
            limit_rate=limit_rate,
            offline=offline,
            link=link,
            keep_archives=keep_archives,
        )
        placing: FetchOptions = {"into": into, "link": link, "force": force}
        return function(downloading=Downloading(target, placing, not no_progress), **rest)

    for option in reversed(_TRANSFER):
        command = option(command)
    return command


_TRANSFER = (
    click.option("--into", metavar="DIR", help="Put the files into this folder as well."),
    click.option(
        "--link", type=click.Choice(LINK_MODES), help="How files get into DIR (default: auto)."
    ),
    click.option("-j", "--jobs", metavar="N", help="Connections in all."),
    click.option("--limit-rate", metavar="RATE", help="Bytes per second, such as 20MB."),
    click.option("--offline", is_flag=True, default=None, help="Use no network."),
    click.option("--force", is_flag=True, help="Replace other files in DIR."),
    click.option(
        "--keep-archives/--drop-archives",
        default=None,
        help="Keep archives in the cache once they are unpacked (default: as configured).",
    ),
    click.option("--no-progress", is_flag=True, help="Show no progress."),
)


def cache(cache_dir: str | None, **arguments: Any) -> Cache:
    """The cache for these options."""
    return Cache(settings=settings.load(cache_dir=cache_dir, **arguments))


def complete_available(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of datasets, for the shell's completion."""
    try:
        found = Cache(settings=settings.load(offline=True)).available(progress=lambda _event: None)
    except DscacheError:
        return []  # a shell that completes is no place for errors
    return [
        CompletionItem(each.name, help=each.summary)
        for each in found
        if each.name.startswith(incomplete)
    ]


def complete_cached(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of datasets in the cache, for the shell's completion."""
    try:
        found = Cache().cached()
    except DscacheError:
        return []  # as above
    return [CompletionItem(each.name) for each in found if each.name.startswith(incomplete)]
