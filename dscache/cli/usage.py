"""The command that says what the cache takes: usage."""

from __future__ import annotations

import click

from dscache.cli import say
from dscache.cli.options import cache, common
from dscache.cli.tables import bars
from dscache.quantities import show_size


@click.command()
@common
def usage(cache_dir: str | None, as_json: bool) -> None:
    """Show what the cache takes on the disk, the largest first."""
    found = cache(cache_dir).usage()
    if as_json:
        say.document(
            {
                "root": found.root,
                "bytes": found.bytes,
                "blobs": found.blobs,
                "saved_bytes": found.saved_bytes,
                "datasets": [
                    {
                        "name": each.name,
                        "version": each.version,
                        "registry": each.registry,
                        "bytes": each.bytes,
                        "shared_bytes": each.shared_bytes,
                        "last_used": say.when(each.last_used),
                        "held_by": [],
                    }
                    for each in found.datasets
                ],
            }
        )
        return
    bars(
        [
            (
                f"{each.registry}/{each.name}@{each.version}",
                each.bytes,
                f"{show_size(each.shared_bytes)} shared" if each.shared_bytes else "",
            )
            for each in found.datasets
        ]
    )
    click.echo(
        f"{show_size(found.bytes)} in {found.blobs} files below {found.root}; "
        f"{show_size(found.saved_bytes)} saved by sharing"
    )


COMMANDS = {"usage": usage}
