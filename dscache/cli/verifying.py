"""The command that looks whether what is here is as it was stored: verify."""

from __future__ import annotations

import click
import msgspec

from dscache.cli import say
from dscache.cli.options import cache, common, complete_cached
from dscache.errors import IntegrityError


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_cached)
@click.option(
    "--quick/--full",
    default=True,
    help="Compare xxh3_128 (default), or the sha256 of every file that has one.",
)
@common
def verify(names: tuple[str, ...], quick: bool, cache_dir: str | None, as_json: bool) -> int:
    """Read what the cache holds, and find what is not as it was stored."""
    found = cache(cache_dir).verify(names, full=not quick)
    if as_json:
        facts = {"checked": found.checked, "ok": found.ok}
        corrupt = [msgspec.to_builtins(each) for each in found.corrupt]
        say.document({**facts, "corrupt": corrupt, "repaired": []})
    else:
        for each in found.corrupt:
            click.echo(f"{each.path}: {each.problem} ({', '.join(each.datasets)})")
        say.talk(f"{found.ok} of {found.checked} files and views are as they were stored")
        if found.corrupt:
            say.talk(
                "hint: remove the damaged files and the folders of their datasets "
                "(`dscache path`), and fetch these again; what is right is not downloaded"
            )
    return IntegrityError.code if found.corrupt else 0


COMMANDS = {"verify": verify}
