"""The command that makes room: prune."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from dscache.cli import say
from dscache.cli.options import cache, common, complete_cached
from dscache.cli.tables import columns
from dscache.quantities import show_size
from dscache.results import Plan, Removal


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_cached)
@click.option("--older-than", metavar="T", help="Datasets not used for so long, such as 30d.")
@click.option(
    "--max-size", metavar="S", help="The least recently used, until the cache has at most S."
)
@click.option("--free", metavar="S", help="The same, until the disk has S free.")
@click.option("--archives", is_flag=True, help="Archives of which all is unpacked.")
@click.option("--all", "all_", is_flag=True, help="Every dataset.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@common
def prune(
    names: tuple[str, ...],
    dry_run: bool,
    all_: bool,
    cache_dir: str | None,
    as_json: bool,
    **policy: Any,
) -> None:
    """Remove garbage, and what a policy or NAMEs say; never what is pinned, needed or in use.

    Garbage is what nothing needs any more: abandoned downloads, old wrong bytes, files that no
    dataset has. The policies add up.
    """
    target = cache(cache_dir)
    plan = target.plan_prune(names, all=all_, **policy)
    if not dry_run:
        plan = target.prune(plan)
    if as_json:
        say.document({"dry_run": dry_run, **_facts(plan)})
        return
    rows = [(row.kind, *_cells(row)) for row in plan.removed]
    rows += [("kept", row.name, show_size(row.bytes), "", row.reason) for row in plan.kept]
    if rows:
        columns(("what", "of", "size", "last used (UTC)", "reason"), rows, right=(2,))
    would = "would free" if dry_run else "freed"
    say.talk(f"{would} {show_size(plan.freed_bytes)}")


def _cells(row: Removal) -> tuple[str, str, str, str]:
    used = "" if row.last_used is None else say.when(row.last_used)[:16].replace("T", " ")
    return row.name, show_size(row.bytes), used, row.reason


def _facts(plan: Plan) -> dict[str, Any]:
    removed = [
        {
            "kind": row.kind,
            "name": row.name,
            "bytes": row.bytes,
            "reason": row.reason,
            "last_used": None if row.last_used is None else say.when(row.last_used),
        }
        for row in plan.removed
    ]
    kept = [msgspec.to_builtins(each) for each in plan.kept]
    return {"freed_bytes": plan.freed_bytes, "removed": removed, "kept": kept}


COMMANDS = {"prune": prune}
