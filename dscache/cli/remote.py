"""Commands on the remote: the store that the machines of a team share."""

from __future__ import annotations

import click
import msgspec

from dscache.cli import say
from dscache.cli.options import cache, common, complete_cached
from dscache.errors import TransferError
from dscache.quantities import show_size


@click.group()
def remote() -> None:
    """Use a store that the machines of a team share."""


@remote.command()
@common
def status(cache_dir: str | None, as_json: bool) -> int:
    """Say whether the remote answers and takes files: exit code 4 if it does not answer."""
    found = cache(cache_dir).remote_status(progress=say.notices)
    if as_json:
        say.document(msgspec.to_builtins(found))
    else:
        can = "can be read and written" if found.writable else "can be read"
        click.echo(f"{found.url} {can if found.reachable else 'cannot be reached'}")
    return 0 if found.reachable else TransferError.code


@remote.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_cached)
@common
def push(names: tuple[str, ...], cache_dir: str | None, as_json: bool) -> None:
    """Write cached datasets to the remote."""
    done = cache(cache_dir).push(names, progress=say.notices)
    if as_json:
        say.document(msgspec.to_builtins(done))
    else:
        say.talk(
            f"{done.uploaded} files written, {show_size(done.bytes)}; {done.skipped} were there"
        )


@remote.command()
@click.option("--older-than", metavar="T", required=True, help="Written so long ago, such as 90d.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@common
def prune(older_than: str, dry_run: bool, cache_dir: str | None, as_json: bool) -> None:
    """Remove old files from the remote; who needs one again gets it from its origin."""
    done = cache(cache_dir).prune_remote(older_than, dry_run=dry_run)
    if as_json:
        say.document({"dry_run": dry_run, **msgspec.to_builtins(done)})
    else:
        would = "would remove" if dry_run else "removed"
        say.talk(f"{would} {done.removed} files, {show_size(done.bytes)}")


COMMANDS = {"remote": remote}
