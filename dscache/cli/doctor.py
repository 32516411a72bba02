"""The command that says what is wrong with a cache and its surroundings: doctor."""

from __future__ import annotations

import click

from dscache.cache import Cache
from dscache.cli import say
from dscache.cli.options import common

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--peer", is_flag=True, help="Meet another host that has the same folder.")
@common
def doctor(peer: bool, cache_dir: str | None, as_json: bool) -> int:
    """Look at the cache folder, its filesystem, the configuration and the registries."""
    # Not `options.cache`: a configuration that is broken is something to be told of.
    found = Cache(cache_dir).diagnose(peer=peer, progress=say.notices)
    if as_json:
        keys = ("name", "status", "detail", "hint")
        checks = [{key: getattr(each, key) for key in keys} for each in found.checks]
        say.document({"ok": found.ok, "checks": checks})
        return found.code
    width = max(len(each.name) for each in found.checks)
    for each in found.checks:
        status = click.style(f"{each.status:<4}", fg=_COLOURS[each.status])
        click.echo(f"{status}  {each.name:<{width}}  {each.detail}")
        if each.hint:
            click.echo(f"{'':6}{click.style('hint:', fg='cyan')} {each.hint}")
    return found.code


COMMANDS = {"doctor": doctor}
