"""The command that makes room: prune."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from dscache.cli import say
from dscache.cli.options import cache, common, complete_cached
from dscache.cli.tables import columns
from dscache.errors import UsageError
from dscache.quantities import show_size
from dscache.results import Plan


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_cached)
@click.option("--archives", is_flag=True, help="Archives of which all is unpacked.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@common
def prune(
    names: tuple[str, ...], archives: bool, dry_run: bool, cache_dir: str | None, as_json: bool
) -> None:
    """Remove what the cache can do without."""
    if not archives:
        raise UsageError("say what to remove: --archives")
    target = cache(cache_dir)
    plan = target.plan_prune(names, archives=archives)
    if not dry_run:
        plan = target.prune(plan)
    if as_json:
        say.document({"dry_run": dry_run, **_facts(plan)})
        return
    rows = [(each.kind, each.name, show_size(each.bytes), each.reason) for each in plan.removed]
    rows += [("kept", each.name, show_size(each.bytes), each.reason) for each in plan.kept]
    if rows:
        columns(("what", "of", "size", "reason"), rows, right=(2,))
    would = "would free" if dry_run else "freed"
    say.talk(f"{would} {show_size(plan.freed_bytes)}")


def _facts(plan: Plan) -> dict[str, Any]:
    removed = [
        {"kind": each.kind, "name": each.name, "bytes": each.bytes, "reason": each.reason}
        for each in plan.removed
    ]
    kept = [msgspec.to_builtins(each) for each in plan.kept]
    return {"freed_bytes": plan.freed_bytes, "removed": removed, "kept": kept}


COMMANDS = {"prune": prune}
