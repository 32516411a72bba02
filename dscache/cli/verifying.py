"""The command that looks whether what is here is as it was stored, and mends it: verify."""

from __future__ import annotations

import click
import msgspec

from dscache.cli import progress, say
from dscache.cli.options import cache, common, complete_cached
from dscache.errors import IntegrityError
from dscache.results import Damage, Verified


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_cached)
@click.option(
    "--quick/--full",
    default=True,
    help="Compare xxh3_128 (default), or the sha256 of every file that has one.",
)
@click.option("--repair", is_flag=True, help="Bring damaged files again; mend views and records.")
@click.option("--limit-rate", metavar="RATE", default="0", help="Read so much a second: 200MB.")
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@common
def verify(
    *,
    names: tuple[str, ...],
    quick: bool,
    repair: bool,
    limit_rate: str,
    no_progress: bool,
    cache_dir: str | None,
    as_json: bool,
) -> int:
    """Read what the cache holds, and find what is not as it was stored."""
    here = cache(cache_dir)
    with progress.shown(not no_progress) as emit:
        found = here.verify(
            names, full=not quick, repair=repair, limit_rate=limit_rate, progress=emit
        )
    if as_json:
        say.document(msgspec.to_builtins(found))
    else:
        _show(found, repair)
    return IntegrityError.code if found.corrupt else 0


def _show(found: Verified, is_repair: bool) -> None:
    for each in found.repaired:
        click.echo(f"{_line(each)}: repaired")
    for each in found.corrupt:
        click.echo(_line(each))
    say.talk(f"{found.ok} of {found.checked} files and views are as they were stored")
    if found.corrupt and not is_repair:
        say.talk("hint: `dscache verify --repair` brings again what is damaged")
    elif found.corrupt:
        say.talk(
            "hint: what is damaged is not given out; run the same command again when its source "
            "can be reached, or `dscache import` the files"
        )


def _line(each: Damage) -> str:
    return f"{each.path}: {each.problem} ({', '.join(each.datasets) or 'of no dataset'})"


COMMANDS = {"verify": verify}
