"""Commands on registries: using them, and writing one's own."""

from __future__ import annotations

import click

from dscache.cli import say
from dscache.cli.options import cache, common
from dscache.cli.tables import columns


@click.group()
def registry() -> None:
    """Use registries, and write your own."""


@registry.command("list")
@common
def list_(cache_dir: str | None, as_json: bool) -> None:
    """List the registries in use, in the order of look-up."""
    found = cache(cache_dir).registries(progress=say.notices)
    if as_json:
        say.document(
            [
                {"name": each.name, "url": each.url, "datasets": each.datasets, "signed": False}
                for each in found
            ]
        )
        return
    rows = [
        (each.name, "?" if each.datasets is None else str(each.datasets), each.url)
        for each in found
    ]
    columns(("registry", "datasets", "address"), rows, right=(1,))


@registry.command()
@click.argument("name")
@click.argument("url")
@common
def add(name: str, url: str, cache_dir: str | None, as_json: bool) -> None:
    """Use the registry at URL (a folder, or an http(s) prefix) under NAME."""
    cache(cache_dir).add_registry(name, url)
    _done({"name": name, "url": url}, f"{name} is in use: {url}", as_json=as_json)


@registry.command()
@click.argument("name")
@common
def remove(name: str, cache_dir: str | None, as_json: bool) -> None:
    """Use a registry no longer; what was fetched from it stays."""
    cache(cache_dir).remove_registry(name)
    _done({"name": name}, f"{name} is not in use any more", as_json=as_json)


def _done(facts: dict[str, object], text: str, *, as_json: bool) -> None:
    if as_json:
        say.document(facts)
    else:
        say.talk(text)


COMMANDS = {"registry": registry}
