"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from dscache import settings
from dscache.cache import Cache, FetchOptions
from dscache.errors import DscacheError
from dscache.events import Event
from dscache.settings import LINK_MODES

Answer = TypeVar("Answer")
Function = TypeVar("Function", bound=Callable[..., Any])


def common(function: Function) -> Function:
    """`--cache-dir` and `--json`, which every command takes."""
    function = click.option("--json", "as_json", is_flag=True, help="One JSON document.")(function)
    return cache_folder(function)


def a_folder(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuse what an empty variable makes of a folder: it would be the current one, or `/`."""
    if value == "":
        raise click.BadParameter("the name of a folder is empty")
    return value


def complete_folder(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Folders, which the shell knows best."""
    return [CompletionItem(incomplete, type="dir")]


cache_folder = click.option(
    "--cache-dir",
    metavar="DIR",
    help="The cache folder (default: as configured).",
    callback=a_folder,
    shell_complete=complete_folder,
)


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
    click.option(
        "--into",
        metavar="DIR",
        help="Put the files into this folder as well.",
        callback=a_folder,
        shell_complete=complete_folder,
    ),
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
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of datasets that can be had, for the shell's completion."""
    offers = [Offer.of(name) for name in _quietly(lambda: _asked(ctx).names())]
    offers += [
        Offer(each.registry, each.name, each.versions, each.summary)
        for each in _quietly(lambda: _asked(ctx).available(progress=_silent))
    ]
    return completed(offers, incomplete)


def complete_cached(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of datasets in the cache."""
    return completed(map(Offer.of, _quietly(lambda: _asked(ctx).names())), incomplete)


def complete_pinned(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of datasets that are pinned."""
    names = _quietly(lambda: _asked(ctx).names(pinned=True))
    return completed(map(Offer.of, names), incomplete)


def complete_wanted(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of datasets that the project asks for."""
    names = _quietly(lambda: sorted(settings.load().datasets))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Offer(NamedTuple):
    """A dataset whose name may be meant."""

    registry: str
    name: str
    versions: tuple[str, ...]
    summary: str = ""

    @classmethod
    def of(cls, full_name: str) -> Offer:
        """The one version that a full name says."""
        rest, _, version = full_name.partition("@")
        registry, _, name = rest.partition("/")
        return cls(registry, name, (version,))


def completed(offers: Iterable[Offer], incomplete: str) -> list[CompletionItem]:
    """What a word may become: bare names; versions after an `@`; names with their registry where
    that was begun.
    """
    found = list(offers)
    said, at, _ = incomplete.partition("@")
    if at:
        meant = [each for each in found if said in (each.name, f"{each.registry}/{each.name}")]
        texts = {f"{said}@{version}": each for each in meant for version in each.versions}
    else:
        texts = {each.name: each for each in found if each.name.startswith(said)} or {
            f"{each.registry}/{each.name}": each for each in found
        }
    return [
        CompletionItem(text, help=" ".join(each.summary.split()))
        for text, each in sorted(texts.items())
        if text.startswith(incomplete)
    ]


def _asked(ctx: click.Context) -> Cache:
    """The cache that the line so far speaks of; nothing is downloaded for a completion."""
    return cache(ctx.params.get("cache_dir"), offline=True)


def _quietly(ask: Callable[[], list[Answer]]) -> list[Answer]:
    """What is found; nothing where that fails: a shell that completes is no place for errors."""
    try:
        return ask()
    except (DscacheError, OSError):
        return []


def _silent(_event: Event) -> None:
    pass
