"""Commands on a project: add, remove, lock, sync."""

from __future__ import annotations

import click

from dscache.cache import FetchOptions
from dscache.cli import say
from dscache.cli.datasets import report
from dscache.cli.options import (
    Downloading,
    cache,
    common,
    complete_available,
    complete_wanted,
    transfer,
)
from dscache.results import Change, Relocked


@click.command()
@click.argument(
    "names", metavar="NAME[@VERSION]...", nargs=-1, required=True, shell_complete=complete_available
)
@common
def add(names: tuple[str, ...], cache_dir: str | None, as_json: bool) -> None:
    """Add datasets to the project, and lock them; makes a dscache.toml where there is none."""
    _tell(cache(cache_dir).add(*names, progress=say.notices), as_json=as_json)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_wanted)
@common
def remove(names: tuple[str, ...], cache_dir: str | None, as_json: bool) -> None:
    """Take datasets out of the project and its lock; what was fetched stays in the cache."""
    _tell(cache(cache_dir).remove(*names, progress=say.notices), as_json=as_json)


@click.command()
@common
def lock(cache_dir: str | None, as_json: bool) -> None:
    """Ask the registries anew for what dscache.toml says, and write dscache.lock."""
    _tell(cache(cache_dir).lock(progress=say.notices), as_json=as_json)


@click.command()
@click.option(
    "--locked", is_flag=True, help="Refuse a lock that is not what dscache.toml asks for."
)
@transfer
@common
def sync(locked: bool, downloading: Downloading, as_json: bool) -> int:
    """Bring all that is locked, and print where it is; with --into in DIR/NAME."""
    from dscache.cli.progress import shown

    with shown(downloading.shows_progress) as progress:
        options: FetchOptions = {**downloading.placing, "progress": progress}
        results = downloading.cache.sync(locked=locked, **options)
    return report(results, as_json=as_json)


def _tell(found: Relocked, *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"name": each.name, "from": each.before, "to": each.after} for each in found.changed
        ]
        say.document({"path": found.path, "changed": rows})
        return
    for each in found.changed:
        click.echo(_words(each))
    if not found.changed:
        say.talk(f"{found.path}: no version has changed")


def _words(change: Change) -> str:
    if change.before is None:
        return f"{change.name}: added {change.after}"
    if change.after is None:
        return f"{change.name}: removed {change.before}"
    return f"{change.name}: {change.before} -> {change.after}"


COMMANDS = {"add": add, "remove": remove, "lock": lock, "sync": sync}
