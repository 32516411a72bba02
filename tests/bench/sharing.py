"""Registries and the remote: what look-ups, searches and a locked project cost; a remote's speed.

The store is SeaweedFS on this machine, which takes its part of the cores from all contenders alike.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dscache.registry import author
from tests.bench.measuring import DSCACHE, PEER, Contender, Course, Table, compare, start
from tests.bench.payloads import File, Many, many
from tests.bench.programs import DS
from tests.bench.room import Room
from tests.servers import nginx
from tests.weed import Weed, weed

#: Rows and figures by which bars speak of these tables.
FEW, MANY, MILLISECONDS = "of 10", "of 100,000", "ms"
FROM_REMOTE = "rclone copy from S3"
_ENTRIES = {FEW: 10, MANY: 100_000}
_SEARCHED, _LOCKED = 20_000, 1000
_NAME = "set-000005"


def lookup(room: Room) -> Table:
    """One name in a small and in a large registry, in a folder."""
    return _lookup(room, "lookup", "in a folder", str)


def lookup_http(room: Room) -> Table:
    """The same on a web server, with nothing remembered."""
    with nginx(room.folder / "registries", room.folder / "served") as server:
        return _lookup(
            room, "lookup-http", "on a web server", lambda folder: f"{server.url}/{folder.name}"
        )


def search(room: Room) -> Table:
    """All summaries of a registry, in a process of its own."""
    folder = _registry(room, _SEARCHED)
    command = (sys.executable, "-m", "dscache", "search", "number 1999", "--json")
    contender = Contender(DS, command, role=DSCACHE, leaves=False)
    (row,) = compare(_course(room, {"DSCACHE_REGISTRIES": str(folder)}), [contender])
    title = f"search over {_SEARCHED:,} datasets, the whole process"
    return Table(
        "search", title, [replace(row, said="")], figures={MILLISECONDS: 1000 * row.median()}
    )


def remote(room: Room) -> Table:
    """The large file from the remote, verified, beside rclone from the same bucket."""
    with weed(room.folder / "weed") as store:
        bucket, file = store.bucket(), room.big
        key = f"blobs/sha256/{file.sha256[:2]}/{file.sha256[2:]}"
        store.client().upload_file(str(file.path), bucket.removeprefix("s3://"), key)
        registry = room.folder / "registry-of-remote"
        _write(registry, "big", [(file, f"{room.http.url}/{file.path.name}")])
        environment = {
            **store.environment(),
            "DSCACHE_REGISTRIES": str(registry),
            "DSCACHE_REMOTE": bucket,
        }
        contenders = [
            Contender(DS, _fetch("big"), role=DSCACHE),
            rclone_s3(store, f"{bucket.removeprefix('s3://')}/{key}", "{target}"),
        ]
        everything = {**room.environment(), **environment}
        # Fresh memory takes a machine that shares it anything up to a second a GiB: more runs.
        course = replace(room.course(file), environment=everything, runs=7, patience=45.0)
        rows = compare(course, contenders)
    return Table("remote", f"{file.size >> 20} MiB from a remote in SeaweedFS", rows)


def sync(room: Room) -> Table:
    """A locked project of which everything is cached, in a process of its own."""
    files = many(room.files / "locked", _LOCKED, 1 << 10)
    project, cache = room.folder / "project", room.folder / "project-cache"
    registry = room.folder / "registry-of-project"
    _write(registry, "locked", _served(room, files))
    project.mkdir()
    environment = {**room.environment(), "DSCACHE_REGISTRIES": str(registry)}
    words = (sys.executable, "-m", "dscache")
    options = ("--cache-dir", str(cache), "--json")
    for command in (("add", "locked"), ("sync",)):
        start(_in(project, (*words, *command, *options)), cache, environment)()
    contender = replace(_in(project, (*words, "sync", *options)), role=DSCACHE)
    course = Course(room.folder / "target", 0, 0, environment, room.runs)
    (row,) = compare(course, [contender])
    for folder in (files.folder, project, cache, registry):
        shutil.rmtree(folder)
    title = f"sync of a locked project, {_LOCKED:,} artifacts, all cached, the whole process"
    return Table(
        "sync", title, [replace(row, said="")], figures={MILLISECONDS: 1000 * row.median()}
    )


def rclone_s3(store: Weed, source: str, target: str) -> Contender:
    """rclone between a folder and `bucket/path` of the store, either way."""
    own = store.environment()
    remote_options = (
        f":s3,provider=Other,access_key_id={own['AWS_ACCESS_KEY_ID']},"
        f"secret_access_key={own['AWS_SECRET_ACCESS_KEY']},endpoint='{store.url}':"
    )
    places = [
        place if place.startswith(("/", "{")) else remote_options + place
        for place in (source, target)
    ]
    return Contender(FROM_REMOTE, ("rclone", "copy", *places), role=PEER, verifies=False)


def _lookup(room: Room, key: str, where: str, address: Callable[[Path], str]) -> Table:
    command = (sys.executable, "-m", "dscache", "info", _NAME, "--json", "--cache-dir", "{target}")
    contenders = []
    for name, entries in _ENTRIES.items():
        at = f"DSCACHE_REGISTRIES={address(_registry(room, entries))}"
        contenders.append(Contender(name, ("env", at, *command), role=DSCACHE, leaves=False))
    rows = compare(_course(room, {}), contenders)
    title = f"`info` of one dataset of a registry {where}, the whole process"
    return Table(key, title, [replace(row, said="") for row in rows])


def _registry(room: Room, entries: int) -> Path:
    """A registry of so many datasets with its index."""
    folder = room.folder / "registries" / f"of-{entries}"
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "registry.toml").write_text(f'format = 1\nname = "of-{entries}"\n')
        for number in range(entries):
            _write_entry(folder, number)
        author.write_index(str(folder))
    return folder


def _write_entry(folder: Path, number: int) -> None:
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    (folder / f"set-{number:06}.toml").write_text(
        f'version = "1"\nsummary = "Measurements of number {number}, for whoever searches"\n'
        f'license = "MIT"\nhomepage = "https://example.org/{number}"\n\n[[artifacts]]\n'
        f'path = "data-{number}.bin"\nsize = {number}\nhash = "sha256:{digest}"\n'
        f'urls = ["https://example.org/{number}/data.bin"]\n'
    )


def _served(room: Room, files: Many) -> list[tuple[File, str]]:
    """Files with the URLs at which the server has them."""
    return [
        (File(files.folder / name, files.size, sha256), f"{room.http.url}/locked/{name}")
        for name, sha256 in files.sha256.items()
    ]


def _write(folder: Path, name: str, files: list[tuple[File, str]]) -> None:
    """A registry with one dataset of files and their URLs."""
    folder.mkdir()
    (folder / "registry.toml").write_text('format = 1\nname = "bench"\n')
    lines = ['version = "1"\n']
    for file, url in files:
        lines.append(
            f'[[artifacts]]\npath = "{file.path.name}"\nsize = {file.size}\n'
            f'hash = "sha256:{file.sha256}"\nurls = ["{url}"]\n'
        )
    (folder / f"{name}.toml").write_text("\n".join(lines))


def _fetch(name: str) -> tuple[str, ...]:
    words = (sys.executable, "-m", "dscache", "fetch", name, "--no-progress")
    return (*words, "--cache-dir", "{target}")


def _in(folder: Path, command: tuple[str, ...]) -> Contender:
    """A command that runs in a folder."""
    return Contender(DS, ("env", "-C", str(folder), *command), leaves=False)


def _course(room: Room, environment: Mapping[str, str]) -> Course:
    variables = {**room.environment(), **environment}
    return Course(room.folder / "target", 0, 0, variables, max(room.runs, 7))


WORKLOADS = {
    "lookup": lookup,
    "lookup-http": lookup_http,
    "search": search,
    "sync": sync,
    "remote": remote,
}
