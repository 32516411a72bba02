"""Commands that bring datasets and say where they are: fetch, retrieve, path, import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from dscache.cache import FetchOptions
from dscache.cli import say
from dscache.cli.options import (
    Downloading,
    cache,
    common,
    complete_available,
    complete_cached,
    transfer,
)
from dscache.quantities import show_size
from dscache.results import Fetched


@click.command()
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_available
)
@click.option("--files", metavar="GLOB", multiple=True, help="Only matching files (repeatable).")
@click.option("--refresh", is_flag=True, help="Ask remote registries now.")
@transfer
@common
def fetch(
    names: tuple[str, ...],
    files: tuple[str, ...],
    refresh: bool,
    downloading: Downloading,
    as_json: bool,
) -> int:
    """Download and verify datasets, unless they are here, and print where they are."""
    from dscache.cli.progress import shown

    with shown(downloading.shows_progress) as progress:
        options: FetchOptions = {
            **downloading.placing,
            "files": files or None,
            "refresh": refresh,
            "progress": progress,
        }
        results = downloading.cache.fetch_all(names, **options)
    return report(results, as_json=as_json)


@click.command()
@click.argument("url")
@click.option("--hash", "known_hash", metavar="H", help="alg:hex, or sha256 in hex.")
@click.option("--fname", metavar="NAME", help="Name of the file (default: from the URL).")
@click.option("--unpack", metavar="R", help="Recipe for unpacking.")
@transfer
@common
def retrieve(
    url: str,
    known_hash: str | None,
    fname: str | None,
    unpack: str | None,
    downloading: Downloading,
    as_json: bool,
) -> int:
    """Download and verify one file by its URL, unless it is here, and print where it is."""
    from dscache.cli.progress import shown

    with shown(downloading.shows_progress) as progress:
        options: FetchOptions = {**downloading.placing, "progress": progress}
        result = downloading.cache.retrieve_all(
            url, known_hash, fname=fname, unpack=unpack, **options
        )
    return report([result], as_json=as_json)


@click.command()
@click.argument("name", shell_complete=complete_cached)
@click.option("--files", metavar="GLOB", multiple=True, help="Only matching files (repeatable).")
@common
def path(name: str, files: tuple[str, ...], cache_dir: str | None, as_json: bool) -> None:
    """Print where a dataset stands in the cache; downloads nothing."""
    found = cache(cache_dir).find(name, files=files or None)
    if as_json:
        say.document(
            {
                "name": found.name,
                "version": found.version,
                "registry": found.registry,
                "path": str(found.path),
            }
        )
    else:
        click.echo(found.path)


@click.command("import")
@click.argument("name", shell_complete=complete_available)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@common
def import_(name: str, files: tuple[str, ...], cache_dir: str | None, as_json: bool) -> int:
    """Take files that you have downloaded yourself into the cache."""
    result = cache(cache_dir).import_file(name, *files, progress=say.notices)
    return report([result], as_json=as_json)


def report(results: Sequence[Fetched], *, as_json: bool) -> int:
    """Say what came of each name; the exit code is that of the first failure.

    Raises:
        DscacheError: there is one name, and it failed.
    """
    failed = [each.error for each in results if each.error]
    if failed and len(results) == 1:
        raise failed[0]
    if as_json:
        say.document([_facts(each) for each in results])
    else:
        for each in results:
            _tell(each)
    return failed[0].code if failed else 0


def _facts(found: Fetched) -> dict[str, Any]:
    if found.error:
        return {"name": found.name, "error": say.error_facts(found.error)}
    facts = {
        "name": found.name,
        "version": found.version,
        "registry": found.registry,
        "path": str(found.path) if found.path else None,
        "status": found.status,
        "bytes_downloaded": found.bytes_downloaded,
        "bytes_resumed": found.bytes_resumed,
        "size": found.size,
        "seconds": round(found.seconds, 6),
    }
    return facts | ({"link": found.link} if found.link else {})


def _tell(found: Fetched) -> None:
    if found.error:
        say.talk(f"{found.name}:")
        say.failure(found.error, as_json=False)
        return
    size = show_size(found.size)
    match found.status:
        case "cached":
            how = f"{size}, here already: nothing downloaded"
        case "linked":
            how = f"{size}, the bytes were here already: nothing downloaded"
        case "incomplete":
            how = f"{size} taken; other files of it are still missing"
        case _:
            resumed = f", {show_size(found.bytes_resumed)} of an earlier attempt were used"
            how = (
                f"{size} verified, {show_size(found.bytes_downloaded)} downloaded"
                f"{resumed if found.bytes_resumed else ''} in {found.seconds:.1f} s"
            )
    say.talk(f"{found.registry}/{found.name}@{found.version}: {how}")
    if found.path:
        click.echo(found.path)


COMMANDS = {"fetch": fetch, "retrieve": retrieve, "path": path, "import": import_}
