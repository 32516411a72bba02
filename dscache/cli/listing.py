"""Commands that tell what there is: list, search, info, config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from dscache import settings
from dscache.cli import say
from dscache.cli.options import cache, common, complete_available
from dscache.cli.tables import columns
from dscache.model import Artifact
from dscache.quantities import show_size
from dscache.results import Available, Cached, Info


@click.command("list")
@click.option("--available", is_flag=True, help="What the registries offer.")
@common
def list_(available: bool, cache_dir: str | None, as_json: bool) -> None:
    """List the datasets in the cache."""
    target = cache(cache_dir)
    if available:
        _show_available(target.available(progress=say.notices), as_json=as_json)
        return
    found = target.cached()
    if as_json:
        say.document(
            [
                {
                    "name": each.name,
                    "version": each.version,
                    "registry": each.registry,
                    "bytes": each.bytes,
                    "last_used": say.when(each.last_used),
                    "pinned": each.pinned,
                }
                for each in found
            ]
        )
        return
    rows = [
        (
            f"{each.registry}/{each.name}",
            each.version,
            show_size(each.bytes),
            say.when(each.last_used)[:16].replace("T", " "),
            ", ".join(_remarks(each)),
        )
        for each in found
    ]
    columns(("dataset", "version", "size", "last used (UTC)", ""), rows, right=(2,))
    if not found:
        say.talk("nothing is cached yet; `dscache list --available` shows what there is")


def _remarks(each: Cached) -> Iterator[str]:
    if each.pinned:
        yield "pinned"
    if not each.complete:
        yield "some files"


@click.command()
@click.argument("text")
@common
def search(text: str, cache_dir: str | None, as_json: bool) -> None:
    """Find datasets by name or summary."""
    found = cache(cache_dir).available(text, progress=say.notices)
    _show_available(found, as_json=as_json)
    if not found and not as_json:
        say.talk(f"no dataset with {text!r} in its name or summary")


@click.command()
@click.argument("name", shell_complete=complete_available)
@common
def info(name: str, cache_dir: str | None, as_json: bool) -> None:
    """Show all that is known of a dataset."""
    found = cache(cache_dir).info(name, progress=say.notices)
    if as_json:
        say.document(_info_facts(found))
        return
    dataset = found.dataset
    size = "unknown" if dataset.size is None else show_size(dataset.size)
    lines = {
        "dataset": f"{dataset.registry}/{dataset.name}@{dataset.version}",
        "summary": dataset.summary,
        "versions": ", ".join(found.versions),
        "size": size,
        "license": dataset.license,
        "homepage": dataset.homepage,
        "citation": dataset.citation,
        "withdrawn": dataset.yanked,
        "registry": found.registry_url,
        "also in": ", ".join(found.also_in),
        "trust": _TRUST[_trust(found)],
        "cached": str(found.path) if found.path else "no",
        "archives": "not kept: what they hold is unpacked" if found.archives_dropped else "",
    }
    for key, value in lines.items():
        if value:
            click.echo(f"{key + ':':<10} {value}")
    for artifact in dataset.artifacts[:_SHOWN]:
        click.echo(f"  {_artifact_line(artifact)}")
    if len(dataset.artifacts) > _SHOWN:
        click.echo(f"  and {len(dataset.artifacts) - _SHOWN} more (all with --json)")


@click.command()
@common
def config(cache_dir: str | None, as_json: bool) -> None:
    """Show every setting, its value and where it comes from."""
    found = settings.load(cache_dir=cache_dir)
    facts = {
        key: {"value": value, "source": found.sources[name]}
        for key, name, value in _setting_values(found)
    }
    if as_json:
        say.document(facts)
        return
    rows = [(key, _shown(each["value"]), str(each["source"])) for key, each in facts.items()]
    columns(("setting", "value", "source"), rows)


_SHOWN = 20
_TRUST = {
    "registry": "the registry gives a strong hash for every file",
    "first-use": "no strong hash is known; the first download is trusted",
}


def _show_available(found: Sequence[Available], *, as_json: bool) -> None:
    if as_json:
        say.document(
            [
                {
                    "name": each.name,
                    "version": each.version,
                    "registry": each.registry,
                    "size": each.size,
                    "summary": each.summary,
                    "cached": each.cached,
                }
                for each in found
            ]
        )
        return
    rows = [
        (
            f"{each.registry}/{each.name}",
            each.version,
            "?" if each.size is None else show_size(each.size),
            "yes" if each.cached else "",
            each.summary,
        )
        for each in found
    ]
    columns(("dataset", "version", "size", "cached", "summary"), rows, right=(2,))


def _trust(found: Info) -> str:
    return "first-use" if found.dataset.first_use else "registry"


def _info_facts(found: Info) -> dict[str, Any]:
    dataset = found.dataset
    return {
        "name": dataset.name,
        "version": dataset.version,
        "versions": list(found.versions),
        "registry": dataset.registry,
        "registry_url": found.registry_url,
        "also_in": list(found.also_in),
        "summary": dataset.summary,
        "license": dataset.license,
        "homepage": dataset.homepage,
        "citation": dataset.citation,
        "yanked": dataset.yanked,
        "size": dataset.size,
        "artifacts": [
            {
                "path": each.path,
                "size": each.size,
                "hash": str(each.hash),
                "checksums": [str(digest) for digest in each.checksums],
                "urls": list(each.urls),
                "unpack": each.unpack,
                "manual": each.manual,
            }
            for each in dataset.artifacts
        ],
        "cached": found.path is not None,
        "path": str(found.path) if found.path else None,
        "archives_dropped": found.archives_dropped,
        "trust": _trust(found),
    }


def _artifact_line(artifact: Artifact) -> str:
    size = "?" if artifact.size is None else show_size(artifact.size)
    how = "by hand" if artifact.manual and not artifact.urls else ""
    return f"{artifact.path}  {size}  {artifact.hash}  {how}".rstrip()


def _setting_values(found: settings.Settings) -> list[tuple[str, str, Any]]:
    """Each setting by the key it has in the configuration file, credentials left out."""
    values = []
    for name in found.sources:
        key = name.replace("unpack_", "unpack.", 1) if name.startswith("unpack_") else name
        value = getattr(found, name)
        if name == "auth":
            value = sorted(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        values.append((key, name, value))
    return values


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {each}" for key, each in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


COMMANDS = {"list": list_, "search": search, "info": info, "config": config}
