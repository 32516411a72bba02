"""The command that brings datasets to every host of a cluster: warm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dscache import settings
from dscache.cli import say, tables
from dscache.cli.options import common, complete_available
from dscache.errors import UsageError
from dscache.quantities import show_size

if TYPE_CHECKING:
    from dscache.integrations.dask import Warmed


@click.command()
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_available
)
@click.option("--dask", "address", metavar="ADDRESS", required=True, help="Of Dask's scheduler.")
@click.option("--files", metavar="GLOB", multiple=True, help="Only matching files (repeatable).")
@click.option("--refresh", is_flag=True, help="Have the hosts ask remote registries now.")
@common
def warm(
    names: tuple[str, ...],
    address: str,
    files: tuple[str, ...],
    refresh: bool,
    cache_dir: str | None,
    as_json: bool,
) -> int:
    """Bring datasets to every host of a Dask cluster, once per host.

    The hosts look the names up with their own configuration; --cache-dir is a folder there.
    """
    try:
        from dscache.integrations import dask
    except ImportError as error:
        hint = "pip install 'dscache[dask]'"
        raise UsageError(f"warm needs the package {error.name}", hint=hint) from error
    with dask.connected(address, timeout=settings.load().connect_timeout) as client:
        results = dask.warm(client, names, files=files, refresh=refresh, cache_dir=cache_dir)
    failed = [each.error for each in results if each.error]
    if as_json:
        say.document([_facts(each) for each in results])
    else:
        _tell(results)
    return failed[0].code if failed else 0


def _facts(found: Warmed) -> dict[str, Any]:
    facts = {"name": found.name, "host": found.host, "worker": found.worker}
    if found.error:
        return {**facts, "error": say.error_facts(found.error)}
    return {
        **facts,
        "version": found.version,
        "registry": found.registry,
        "path": found.path,
        "status": found.status,
        "bytes_downloaded": found.bytes_downloaded,
        "bytes_resumed": found.bytes_resumed,
        "size": found.size,
        "seconds": round(found.seconds, 6),
    }


def _tell(results: Sequence[Warmed]) -> None:
    tables.columns(
        ("host", "dataset", "size", "downloaded", "seconds", "status"),
        [_row(each) for each in results],
        right=(2, 3, 4),
    )
    for each in results:
        if each.error:
            say.talk(f"{each.name} on {each.host}:")
            say.failure(each.error, as_json=False)


def _row(found: Warmed) -> tuple[str, ...]:
    if found.error:
        return found.host, found.name, "", "", "", "failed"
    name = f"{found.registry}/{found.name}@{found.version}"
    came, seconds = show_size(found.bytes_downloaded), f"{found.seconds:.1f}"
    return found.host, name, show_size(found.size), came, seconds, found.status


COMMANDS = {"warm": warm}
