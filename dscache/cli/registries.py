"""Commands on registries: using them, and writing one's own."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from dscache.cache import Cache
from dscache.cli import say
from dscache.cli.options import cache, common, complete_available
from dscache.cli.progress import shown
from dscache.cli.tables import columns
from dscache.digest import sums_of
from dscache.errors import InvalidFile
from dscache.model import Reference
from dscache.registry import author, check

_where = click.option(
    "--registry",
    "folder",
    metavar="DIR",
    default=".",
    help="Folder of the registry (default: the current one).",
)


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


@registry.command()
@click.argument("folder", metavar="DIR")
@click.option("--name", help="Name of the registry (default: that of the folder).")
@click.option("--title", default="", help="A line for people.")
@common
def init(folder: str, name: str | None, title: str, cache_dir: str | None, as_json: bool) -> None:
    """Start a registry of your own in DIR."""
    name = name or Path(folder).resolve().name.lower()
    author.init(folder, name, title)
    _done({"name": name, "path": folder}, f"{folder} is a registry now: {name}", as_json=as_json)


@registry.command()
@click.argument("name")
@click.argument("sources", metavar="FILE-OR-URL...", nargs=-1)
@_where
@click.option("--version", default="", help="Version (default: the current one, or 1).")
@click.option("--unpack", default="", metavar="R", help="Recipe for unpacking the files.")
@click.option("--license", "license_", default="", help="Licence, as SPDX or in words.")
@click.option("--summary", default="", help="A line on what it is.")
@click.option("--homepage", default="", help="Where to read more.")
@click.option("--base-url", default="", help="Where the files will be found, by their names.")
@click.option("--from-pooch", metavar="FILE", help="Take the files from a Pooch registry file.")
@common
def new(
    name: str,
    sources: tuple[str, ...],
    folder: str,
    version: str,
    unpack: str,
    license_: str,
    summary: str,
    homepage: str,
    base_url: str,
    from_pooch: str | None,
    cache_dir: str | None,
    as_json: bool,
) -> None:
    """Write a version of a dataset from files and URLs."""
    if bool(sources) == bool(from_pooch):
        raise click.UsageError("give files or URLs, or --from-pooch FILE")
    draft = author.Draft(
        name=name,
        version=version,
        summary=summary,
        license=license_,
        homepage=homepage,
        unpack=unpack,
        base_url=base_url,
    )
    if from_pooch:
        file = author.new_from_pooch(folder, draft, from_pooch)
    else:
        file = author.new(folder, draft, sources, partial(_download, cache(cache_dir)))
    _done({"name": name, "file": file}, f"{folder}/{file} is written", as_json=as_json)


@registry.command("check")
@click.argument("folder", metavar="DIR", default=".")
@common
def check_(folder: str, cache_dir: str | None, as_json: bool) -> int:
    """Check every rule of a registry: exit code 8 with errors, 0 with warnings only."""
    report = check.check(folder)
    if as_json:
        say.document(asdict(report))
    else:
        for kind, findings in (("error", report.errors), ("warning", report.warnings)):
            for each in findings:
                key = f"{each.key}: " if each.key else ""
                click.echo(f"{kind}: {each.file}: {key}{each.message}")
        say.talk(f"{len(report.errors)} errors, {len(report.warnings)} warnings")
    return InvalidFile.code if report.errors else 0


@registry.command("index")
@click.argument("folder", metavar="DIR", default=".")
@common
def index_(folder: str, cache_dir: str | None, as_json: bool) -> None:
    """Write index.json, from which lists and searches are answered."""
    written = author.write_index(folder)
    text = f"{folder}/index.json {'is written' if written else 'was up to date'}"
    _done({"path": folder, "written": written}, text, as_json=as_json)


@registry.command()
@click.argument("name", shell_complete=complete_available)
@common
def export(name: str, cache_dir: str | None, as_json: bool) -> None:
    """Print a dataset as a Pooch registry file."""
    text = cache(cache_dir).export(name, progress=say.notices)
    if as_json:
        say.document({"name": name, "registry": text})
    else:
        click.echo(text, nl=False)


@registry.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.option("--reason", required=True, help="Why nobody should use it any more.")
@_where
@common
def yank(reference: str, reason: str, folder: str, cache_dir: str | None, as_json: bool) -> None:
    """Mark a version as withdrawn; who fetches it is told why."""
    found = Reference.parse(reference)
    if not found.version:
        raise click.UsageError("NAME@VERSION is needed")
    files = author.yank(folder, found.name, found.version, reason)
    _done({"name": reference, "files": files}, f"{reference} is withdrawn", as_json=as_json)


def _download(target: Cache, url: str) -> tuple[str, int, str]:
    """Download a URL to learn its size and hash; it stays in the cache."""
    with shown(True) as progress:
        found = target.retrieve_all(url, None, progress=progress)
    path = str(found.unwrap())
    return path, found.size, sums_of(path)["sha256"]


def _done(facts: dict[str, object], text: str, *, as_json: bool) -> None:
    if as_json:
        say.document(facts)
    else:
        say.talk(text)


COMMANDS = {"registry": registry}
