"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from dscache import settings
from dscache.cache import Cache
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


def transfer(function: Function) -> Function:
    """The options of commands that download."""
    for option in reversed(
        (
            click.option("--into", metavar="DIR", help="Put the files into this folder as well."),
            click.option(
                "--link",
                type=click.Choice(LINK_MODES),
                help="How files get into DIR (default: auto).",
            ),
            click.option("-j", "--jobs", metavar="N", help="Connections in all."),
            click.option("--limit-rate", metavar="RATE", help="Bytes per second, such as 20MB."),
            click.option("--offline", is_flag=True, default=None, help="Use no network."),
            click.option("--force", is_flag=True, help="Replace other files in DIR."),
            click.option("--no-progress", is_flag=True, help="Show no progress."),
        )
    ):
        function = option(function)
    return function


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
