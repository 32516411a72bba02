"""Between datasets and lines: what a registry said becomes a line, and a line a dataset again.

A lock file comes with somebody else's repository: what a line says is checked as an entry of a
registry is. Pure but for the places of registries, which it is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec.structs import replace

from dscache.digest import Digest
from dscache.model import Artifact, Dataset, Manifest
from dscache.project.lockfile import Line, Lock
from dscache.registry import entries, rules
from dscache.registry.order import bundled
from dscache.registry.places import Folder
from dscache.registry.tables import ArtifactEntry, Entry, ManifestEntry
from dscache.settings import Settings

BUNDLED = "bundled"
#: The base of a registry in a folder that is not in use here; what is below it is left out.
_NOWHERE = "file:///"


def line_of(name: str, dataset: Dataset, project: str) -> Line:
    """The line for a dataset as its registry has it.

    Args:
        name: as `dscache.toml` has it.
        project: the folder of the project.
    """
    manifest = _manifest_entry(dataset) if dataset.manifest else None
    entry = Entry(
        version=dataset.version,
        summary=dataset.summary,
        license=dataset.license,
        homepage=dataset.homepage,
        citation=dataset.citation,
        yanked=dataset.yanked,
        artifacts=[_artifact_entry(each, dataset.base) for each in dataset.artifacts],
        manifest=manifest,
    )
    is_other = dataset.name != name.rpartition("/")[2]
    address = _address(dataset.base, project)
    return Line(name, dataset.registry, address, entry, dataset.name if is_other else "")


def dataset_in(lock: Lock, line: Line, settings: Settings) -> Dataset:
    """The dataset of a line of a lock, made once; raises as `dataset_of`."""
    base = base_of(line, settings)
    known = lock.made.get((line.name, base))
    if known is None:
        known = lock.made[line.name, base] = dataset_of(line, base)
    return known


def dataset_of(line: Line, base: str) -> Dataset:
    """The dataset that a line describes.

    Args:
        base: see `base_of`; where it is empty, local files are left out.

    Raises:
        InvalidFile, UnsafeError: the line breaks a rule of registries.
    """
    is_remote = _is_remote(line.address)
    for problem in rules.problems(line.entry, local=not is_remote):
        raise problem.located(f"the lock of {line.name}")
    found = line.reference
    made = entries.dataset(line.entry, found.name, line.registry, base or _NOWHERE)
    if not base.startswith("file:") and not is_remote:
        made = _without_local(made, line, base)
    return replace(made, pins=tuple(_pins(line.entry.artifacts)))


def base_of(line: Line, settings: Settings) -> str:
    """Where the registry of a line is: a URL that ends in '/'.

    A folder counts only if it is a registry in use here: a project that comes with somebody
    else's repository has no say in which files of this machine are read. Empty where it is not.
    """
    if _is_remote(line.address):
        return f"{line.address}/"
    if line.address == BUNDLED:
        return next((each.place.base for each in bundled() if each.name == line.registry), "")
    known = {**settings.registries, **settings.project_registries}.get(line.registry)
    if known is not None:
        return f"{known.rstrip('/')}/" if _is_remote(known) else _folder_url(known)
    folder = _folder_url(os.path.join(settings.project or "", line.address))
    addresses = (each for each in settings.extra_registries if not _is_remote(each))
    return folder if folder in map(_folder_url, addresses) else ""


def _is_remote(address: str) -> bool:
    return "://" in address and not address.startswith("file:")


def _folder_url(address: str) -> str:
    return Folder(_path(address) if address.startswith("file:") else address).base


def _path(url: str) -> str:
    from dscache.sources.file import path_of  # late: it takes 20 ms, and few have such addresses

    return path_of(url)


def _address(base: str, project: str) -> str:
    if any(each.place.base == base for each in bundled()):
        return BUNDLED
    if not base.startswith("file:"):
        return base.removesuffix("/")
    folder = _path(base).rstrip("/\\") or os.sep
    inside = os.path.relpath(folder, project) if _is_inside(folder, project) else folder
    return inside.replace(os.sep, "/")


def _is_inside(folder: str, project: str) -> bool:
    return f"{folder}/".startswith(f"{os.path.abspath(project).rstrip('/')}/")


def _artifact_entry(each: Artifact, base: str) -> ArtifactEntry:
    return ArtifactEntry(
        path=each.path,
        size=each.size,
        hash=str(each.hash),
        checksums=[str(digest) for digest in each.checksums],
        urls=_relative(each.urls, base),
        manual=each.manual,
        unpack=each.unpack,
        unpack_to=each.unpack_to,
    )


def _manifest_entry(dataset: Dataset) -> ManifestEntry | None:
    listing = dataset.manifest
    if listing is None:
        return None
    return ManifestEntry(
        path=listing.file.path,
        size=listing.file.size,
        hash=str(listing.file.hash),
        checksums=[str(digest) for digest in listing.file.checksums],
        urls=_relative(listing.file.urls, dataset.base),
        base_urls=_relative(listing.base_urls, dataset.base),
    )


def _relative(urls: Iterable[str], base: str) -> list[str]:
    """URLs on a web server as they are; below a folder or bucket relative to it, which may move."""
    if base.startswith(("https://", "http://")):
        return list(urls)
    return [url.removeprefix(base) for url in urls]


def _pins(artifacts: Iterable[ArtifactEntry]) -> Iterable[tuple[str, str]]:
    """Path and sha256 of what has that only beside a weaker hash."""
    for each in artifacts:
        if not each.checksums or Digest.parse(each.hash).algorithm == "sha256":
            continue  # as mostly
        for digest in map(Digest.parse, each.checksums):
            if digest.algorithm == "sha256":
                yield each.path, digest.hex


def _without_local(dataset: Dataset, line: Line, base: str) -> Dataset:
    """Leave out the files of a folder that is no registry here; `base` is what there is instead."""
    manual = (
        f"it was locked from the registry {line.registry!r} in the folder {line.address}, "
        "which is not in use here; `dscache registry list` shows those that are"
    )

    def usable(each: Artifact) -> Artifact:
        urls = _not_local(each.urls)
        told = each.manual or ("" if urls else manual)
        return replace(each, urls=urls, manual=told)

    listing = dataset.manifest
    if listing:
        listing = Manifest(usable(listing.file), _not_local(listing.base_urls), base)
    artifacts = tuple(map(usable, dataset.artifacts))
    return replace(dataset, artifacts=artifacts, manifest=listing, base=base)


def _not_local(urls: Iterable[str]) -> tuple[str, ...]:
    return tuple(url for url in urls if not url.startswith("file:"))
