"""What is served: files of incompressible bytes, with the lists and registries that name them.

It owns the folder of the served files and the formats in which programs take many URLs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 64 << 20


@dataclass(frozen=True)
class File:
    """One served file."""

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Many:
    """Many files of one size in one folder; `sha256` by name."""

    folder: Path
    size: int
    sha256: dict[str, str]


def file(path: Path, size: int) -> File:
    """A file of `size` random bytes."""
    hasher = hashlib.sha256()
    block = os.urandom(_BLOCK)
    with path.open("wb") as out:
        for start in range(0, size, _BLOCK):
            # No two blocks are alike, and random bytes are made only once.
            piece = (start.to_bytes(8, "big") + block[8:])[: size - start]
            hasher.update(piece)
            out.write(piece)
    return File(path, size, hasher.hexdigest())


def hole(path: Path, size: int) -> File:
    """A file of zeros that takes no memory, for what is never received as a whole."""
    with path.open("wb") as out:
        out.truncate(size)
    return File(path, size, hashlib.sha256(path.name.encode()).hexdigest())


def many(folder: Path, count: int, size: int) -> Many:
    """`count` files of `size` random bytes."""
    folder.mkdir()
    sha256 = {}
    for number in range(count):
        data = os.urandom(size)
        name = f"{number:05}.bin"
        (folder / name).write_bytes(data)
        sha256[name] = hashlib.sha256(data).hexdigest()
    return Many(folder, size, sha256)


@dataclass(frozen=True)
class Lists:
    """The same files as each program wants to be told of them; paths of files in one folder."""

    base: str
    count: int
    registry: Path
    curl: Path
    aria2: Path
    names: Path
    urls: Path
    hashes: Path


def lists(folder: Path, files: Many, base: str, count: int | None = None) -> Lists:
    """Lists of the first `count` of `files`, all of them by default, found at `base` + name."""
    folder.mkdir()
    chosen = dict(list(files.sha256.items())[:count])
    _register_many(folder / "registry", chosen, files.size, base)

    def written(name: str, lines: Iterable[str]) -> Path:
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
        return folder / name

    return Lists(
        base,
        len(chosen),
        folder / "registry",
        written("curl", (f'url = "{base}{name}"\noutput = "{name}"' for name in chosen)),
        written(
            "aria2",
            (
                f"{base}{name}\n  out={name}\n  checksum=sha-256={sha256}"
                for name, sha256 in chosen.items()
            ),
        ),
        written("names", chosen),
        written("urls", (f"{base}{name}" for name in chosen)),
        written("hashes", [json.dumps(chosen)]),
    )


def _register_many(registry: Path, sha256: dict[str, str], size: int, base: str) -> None:
    """The dataset `small`, its files in a manifest, as registries do with very many files."""
    lines = (
        json.dumps({"path": name, "size": size, "hash": digest}) for name, digest in sha256.items()
    )
    text = "\n".join(lines).encode()
    found = hashlib.sha256(text).hexdigest()
    blob = registry / "blobs" / "sha256" / found[:2] / found[2:]
    blob.parent.mkdir(parents=True)
    blob.write_bytes(text)
    entry = f'[manifest]\nhash = "{found}"\nblob = true\nbase_urls = ["{base}"]\n'
    _register(registry, "small", entry)


def register(registry: Path, **files: tuple[File, str]) -> Path:
    """A registry of datasets of one file each, by the name of the dataset: the file and its URL."""
    registry.mkdir()
    for name, (each, url) in files.items():
        _register(registry, name, _artifact(each, url))
    return registry


def register_archive(registry: Path, name: str, file: File, url: str, recipe: str) -> None:
    """One more dataset in a registry, of what an archive holds."""
    _register(registry, name, f'{_artifact(file, url)}unpack = "{recipe}"\n')


def _artifact(file: File, url: str) -> str:
    known = f'path = "{file.path.name}"\nsize = {file.size}\nhash = "{file.sha256}"\n'
    return f'[[artifacts]]\n{known}urls = ["{url}"]\n'


def _register(registry: Path, name: str, entry: str) -> None:
    (registry / "registry.toml").write_text('format = 1\nname = "bench"\n')
    (registry / f"{name}.toml").write_text(f'version = "1"\n{entry}')
