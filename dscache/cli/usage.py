"""The command that says what the cache takes: usage."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from dscache.cli import say
from dscache.cli.options import cache, common
from dscache.cli.tables import bars
from dscache.keeping import USAGE_BY
from dscache.quantities import show_size
from dscache.results import DatasetUsage, Group, Usage


@click.command()
@click.option(
    "--by", type=click.Choice(USAGE_BY), help="What a bar stands for (default: a dataset)."
)
@common
def usage(by: str | None, cache_dir: str | None, as_json: bool) -> None:
    """Show what the cache takes on the disk, the largest first."""
    found = cache(cache_dir).usage(by or "dataset")
    if as_json:
        say.document(_facts(found, by))
        return
    if by in (None, "dataset"):
        bars([(_name(each), each.bytes, _note(each)) for each in found.datasets])
    else:
        bars([(each.key, each.bytes, f"{each.datasets} datasets") for each in found.groups])
    click.echo(
        f"{show_size(found.bytes)} in {found.blobs} files below {found.root}; "
        f"{show_size(found.saved_bytes)} saved by sharing"
    )
    counts = found.counts
    click.echo(
        f"{counts.hits} fetches found all they wanted here; {show_size(counts.downloaded)} "
        f"downloaded, {show_size(counts.saved)} not downloaded again"
    )


def _name(each: DatasetUsage) -> str:
    return f"{each.registry}/{each.name}@{each.version}"


def _note(each: DatasetUsage) -> str:
    shared = [f"{show_size(each.shared_bytes)} shared"] if each.shared_bytes else []
    return ", ".join([*shared, f"used {say.when(each.last_used)[:10]}", *each.held_by])


def _facts(found: Usage, by: str | None) -> dict[str, Any]:
    datasets = [
        msgspec.to_builtins(each) | {"last_used": say.when(each.last_used)}
        for each in found.datasets
    ]
    facts = {
        "root": found.root,
        "bytes": found.bytes,
        "blobs": found.blobs,
        "saved_bytes": found.saved_bytes,
        "counters": msgspec.to_builtins(found.counts),
        "datasets": datasets,
    }
    if by is None:
        return facts
    groups = found.groups
    if by == "dataset":
        groups = tuple(Group(_name(each), each.bytes, 1) for each in found.datasets)
    return facts | {"groups": msgspec.to_builtins(groups)}


COMMANDS = {"usage": usage}
