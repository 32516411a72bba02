"""Commands that keep datasets from a prune: run, pin, unpin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

import click
from click.shell_completion import CompletionItem

from dscache.cache import FetchOptions
from dscache.cli import say
from dscache.cli.options import (
    cache,
    cache_folder,
    common,
    complete_available,
    complete_cached,
    complete_pinned,
)
from dscache.errors import UsageError
from dscache.results import Cached, Fetched

_HAS_COMMAND = "dscache.run"


class _WithCommand(click.Command):
    """Everything after `--` is a command of its own, which click must not take apart."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.obj = args[at + 1 :]
        ctx.meta[_HAS_COMMAND] = at < len(args)
        return super().parse_args(ctx, args[:at])


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Datasets; behind the `--` files."""
    if ctx.meta.get(_HAS_COMMAND):
        return [CompletionItem(incomplete, type="file")]
    return complete_available(ctx, param, incomplete)


@click.command(cls=_WithCommand, options_metavar="[OPTIONS]")
@click.argument("names", metavar="NAME... -- COMMAND...", nargs=-1, shell_complete=_complete)
@cache_folder
@click.option("-j", "--jobs", metavar="N", help="Connections in all.")
@click.option("--limit-rate", metavar="RATE", help="Bytes per second, such as 20MB.")
@click.option("--offline", is_flag=True, default=None, help="Use no network.")
@click.option("--refresh", is_flag=True, help="Ask remote registries now.")
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@click.pass_obj
def run(
    command: list[str],
    names: tuple[str, ...],
    cache_dir: str | None,
    jobs: str | None,
    limit_rate: str | None,
    offline: bool | None,
    refresh: bool,
    no_progress: bool,
) -> int:
    """Fetch datasets, and run COMMAND with DSCACHE_PATH_<NAME> set to where they are.

    No prune takes them as long as COMMAND runs. Its exit code is that of COMMAND.
    """
    from dscache.cli.progress import shown

    if not names or not command:
        raise UsageError("datasets, then --, then a command are expected: NAME... -- COMMAND...")
    target = cache(cache_dir, jobs=jobs, limit_rate=limit_rate, offline=offline)
    with shown(not no_progress) as progress:
        options: FetchOptions = {"refresh": refresh, "progress": progress}
        results = target.fetch_all(names, **options)
    paths = _paths(results)
    for found in results:
        if found.error:
            raise found.error
    sys.stdout.flush()
    return _become(command, {**os.environ, **paths})


def _paths(results: Sequence[Fetched]) -> dict[str, str]:
    """The variables for the command."""
    paths: dict[str, str] = {}
    for found in results:
        variable = f"DSCACHE_PATH_{re.sub(r'[^A-Z0-9]', '_', found.name.upper())}"
        if paths.setdefault(variable, str(found.path)) != str(found.path):
            raise UsageError(
                f"two datasets would stand in {variable}",
                hint="run the command with one of them, and find the other by `dscache path`",
            )
    return paths


def _become(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Put the command in the place of this process, whose lease it takes over by that.

    Signals and the exit code need no passing on, and a killed command leaves no wrapper behind.
    Windows has no such thing: there this process stays until the command has ended.
    """
    try:
        if os.name == "nt":
            return subprocess.run(command, env=dict(environment), check=False).returncode
        os.execvpe(command[0], list(command), dict(environment))
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run: {error.strerror}") from error


@click.command()
@click.argument("name", shell_complete=complete_cached)
@common
def pin(name: str, cache_dir: str | None, as_json: bool) -> None:
    """Keep a dataset from every prune, until it is unpinned."""
    _tell(cache(cache_dir).pin(name), as_json=as_json)


@click.command()
@click.argument("name", shell_complete=complete_pinned)
@common
def unpin(name: str, cache_dir: str | None, as_json: bool) -> None:
    """Let a dataset go with the next prune that wants it."""
    _tell(cache(cache_dir).unpin(name), as_json=as_json)


def _tell(found: Cached, *, as_json: bool) -> None:
    if as_json:
        say.document({"name": found.name, "version": found.version, "pinned": found.pinned})
    else:
        state = "pinned" if found.pinned else "not pinned any more"
        say.talk(f"{found.registry}/{found.name}@{found.version}: {state}")


COMMANDS = {"run": run, "pin": pin, "unpin": unpin}
