"""Commands on registries: using them, and writing one's own."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import click
import msgspec

from dscache import settings, signing
from dscache.cache import Cache
from dscache.cli import say
from dscache.cli.options import a_folder, cache, common, complete_available
from dscache.cli.progress import shown
from dscache.cli.tables import columns
from dscache.digest import sums_of
from dscache.errors import InvalidFile
from dscache.model import Reference
from dscache.quantities import show_size
from dscache.registry import author, check
from dscache.results import PublishedChange

_where = click.option(
    "--registry",
    "folder",
    metavar="DIR",
    default=".",
    callback=a_folder,
    help="Folder of the registry (default: the current one).",
)
_here = click.argument("folder", metavar="DIR", default=".", callback=a_folder)
_keys = click.option(
    "--keys",
    metavar="DIR",
    default="",
    help="Folder of the private keys, or keyring: (default: as configured).",
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
        say.document(msgspec.to_builtins(found))
        return
    rows = [
        (
            each.name,
            "?" if each.datasets is None else str(each.datasets),
            "yes" if each.signed else "no",
            each.url,
        )
        for each in found
    ]
    columns(("registry", "datasets", "signed", "address"), rows, right=(1,))


@registry.command()
@click.argument("name")
@click.argument("url")
@click.option("--root", metavar="FILE", help="Root of a signed registry, from somebody you trust.")
@common
def add(name: str, url: str, root: str | None, cache_dir: str | None, as_json: bool) -> None:
    """Use the registry at URL (a folder, or a prefix on a server) under NAME."""
    found = cache(cache_dir).add_registry(name, url, root=root, progress=say.notices)
    text = f"{name} is in use: {url}"
    if found.root:
        text += f"\nit is signed, by the root {found.root}"
    if found.first_use:
        text += "\nthat root is trusted on first use: compare it with what its owner tells you"
    facts = {"name": name, "url": url, "signed": bool(found.root), "root": found.root}
    _done(facts | {"first_use": found.first_use}, text, as_json=as_json)


@registry.command()
@click.argument("name")
@common
def remove(name: str, cache_dir: str | None, as_json: bool) -> None:
    """Use a registry no longer; what was fetched from it stays."""
    cache(cache_dir).remove_registry(name)
    _done({"name": name}, f"{name} is not in use any more", as_json=as_json)


@registry.command()
@click.argument("folder", metavar="DIR", callback=a_folder)
@click.option("--name", help="Name of the registry (default: that of the folder).")
@click.option("--title", default="", help="A line for people.")
@click.option("--sign", is_flag=True, help="Make keys, so that it is published signed.")
@_keys
@common
def init(
    folder: str,
    name: str | None,
    title: str,
    sign: bool,
    keys: str,
    cache_dir: str | None,
    as_json: bool,
) -> None:
    """Start a registry of your own in DIR; with --sign also sign one that is there."""
    if keys and not sign:
        raise click.UsageError("--keys goes with --sign")
    facts: dict[str, object] = {"path": folder}
    text = ""
    if not (sign and (Path(folder) / "registry.toml").exists()):
        name = name or Path(folder).resolve().name.lower()
        if sign:
            signing.check(folder, signing.keys_of(settings.load(), name, keys))
        author.init(folder, name, title)
        text = f"{folder} is a registry now: {name}"
    facts["name"] = name = author.name_of(folder)
    if sign:
        place = signing.keys_of(settings.load(), name, keys)
        facts |= {"root": signing.init(folder, place), "keys": place.where}
        text += f"\nits keys are in {place.where}; its root is {facts['root']}"
    _done(facts, text.lstrip(), as_json=as_json)


@registry.command()
@_here
@click.option("--root", "root_key", is_flag=True, help="Another key of the root itself.")
@_keys
@common
def rotate(folder: str, root_key: bool, keys: str, cache_dir: str | None, as_json: bool) -> None:
    """Change the key that signs the registry in DIR, from the next publishing on."""
    place = signing.keys_of(settings.load(), author.name_of(folder), keys)
    version = signing.rotate(folder, place, root_key=root_key)
    text = f"root {version} is written, and its new key is in {place.where}; publish it now"
    facts: dict[str, object] = {"path": folder, "version": version, "keys": place.where}
    _done(facts, text, as_json=as_json)


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
@_here
@common
def check_(folder: str, cache_dir: str | None, as_json: bool) -> int:
    """Check every rule of a registry: exit code 8 with errors, 0 with warnings only."""
    report = check.check(folder)
    if as_json:
        say.document(msgspec.to_builtins(report))
    else:
        for kind, findings in (("error", report.errors), ("warning", report.warnings)):
            for each in findings:
                key = f"{each.key}: " if each.key else ""
                click.echo(f"{kind}: {each.file}: {key}{each.message}")
        say.talk(f"{len(report.errors)} errors, {len(report.warnings)} warnings")
    return InvalidFile.code if report.errors else 0


@registry.command("index")
@_here
@common
def index_(folder: str, cache_dir: str | None, as_json: bool) -> None:
    """Write index.json, from which lists and searches are answered."""
    written = author.write_index(folder)
    text = f"{folder}/index.json {'is written' if written else 'was up to date'}"
    _done({"path": folder, "written": written}, text, as_json=as_json)


@registry.command()
@_here
@click.option(
    "--to",
    metavar="URL",
    required=True,
    callback=a_folder,
    help="A folder, or s3://, gs:// or az://.",
)
@click.option("--with-blobs", is_flag=True, help="Also put there what the entries have at URLs.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@_keys
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@common
def publish(
    folder: str,
    to: str,
    with_blobs: bool,
    dry_run: bool,
    keys: str,
    no_progress: bool,
    cache_dir: str | None,
    as_json: bool,
) -> None:
    """Publish the registry in DIR: bytes first, then what names them."""
    began = time.perf_counter()
    with shown(not no_progress) as progress:
        found = cache(cache_dir).publish(
            folder, to, with_blobs=with_blobs, dry_run=dry_run, keys=keys, progress=progress
        )
    if as_json:
        facts = msgspec.to_builtins(found)
        names = ("url", "uploaded", "skipped", "bytes", "published")
        say.document({"dry_run": dry_run, **{name: facts[name] for name in names}})
        return
    columns(("what", "name", "size"), [_row(each) for each in found.changes], right=(2,))
    would = "would be uploaded" if dry_run else "uploaded"
    say.talk(
        f"{found.uploaded} files of data ({show_size(found.bytes)}) {would}, "
        f"{found.skipped} were there; {time.perf_counter() - began:.1f} s"
    )


def _row(each: PublishedChange) -> tuple[str, str, str]:
    what = each.kind if each.new else f"{each.kind}, changed"
    return what, each.name, "" if each.size is None else show_size(each.size)


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
