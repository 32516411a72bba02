"""Signed registries for tests: an author's folder with keys, and publishing it into another folder.

`Author.publish` uploads as a careful publisher does: what never changes only where it is not there,
`timestamp.json` last. It owns the folders; keys are files below them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dscache import signing
from dscache.signing.keys import KeyFolder, Keys
from tests.making import Shelf, artifact

TIMESTAMP = "metadata/timestamp.json"


class Conflict(Exception):
    """Another publisher was faster."""


class Author:
    """Somebody who has a registry, its keys, and a place where readers find it."""

    def __init__(self, folder: Path, *, keys: Keys | None = None, sign: bool = True) -> None:
        self.shelf = Shelf(folder / "author", "team")
        self.keys = keys or KeyFolder(str(folder / "keys"))
        self.public = folder / "public"
        self.public.mkdir()
        self.root = signing.init(str(self.shelf.folder), self.keys) if sign else ""

    @property
    def folder(self) -> str:
        return str(self.shelf.folder)

    @property
    def root_file(self) -> Path:
        """The first root, as the owner gives it to readers."""
        return self.shelf.folder / "metadata" / "1.root.json"

    def add(self, name: str, data: bytes = b"x", version: str = "1") -> None:
        """Write a dataset of one file, whose content tells versions apart."""
        self.shelf.add(name, [artifact("a.bin", data, "https://x.example/a")], version=version)

    def files(self) -> dict[str, bytes]:
        """The registry's own files."""
        return {
            path.name: path.read_bytes() for path in self.shelf.folder.iterdir() if path.is_file()
        }

    def renewal(self, files: Iterable[str] | None = None) -> signing.Renewal:
        """What to upload for these files, by default all."""
        own = self.files()
        changed = own if files is None else {file: own[file] for file in files}
        return signing.renewal(self.folder, self.keys, self.read, changed)

    def publish(self, files: Iterable[str] | None = None) -> signing.Renewal:
        """Publish, entries first."""
        renewal = self.renewal(files)
        for file, data in self.files().items():
            self.put(file, data)
        self.upload(renewal)
        return renewal

    def upload(self, renewal: signing.Renewal, *, until: int | None = None) -> None:
        """Upload in order; `until` so many files, as one who is interrupted."""
        for file, data in renewal.files[:until]:
            if file != TIMESTAMP and self.read(file) not in (None, data):
                raise Conflict(file)
            self.put(file, data)
        if until is None:
            for file in renewal.obsolete:
                (self.public / file).unlink()

    def read(self, file: str) -> bytes | None:
        """A file at the public place."""
        path = self.public / file
        return path.read_bytes() if path.is_file() else None

    def put(self, file: str, data: bytes) -> None:
        """Write a file at the public place; whoever reads meanwhile gets the old or the new one."""
        path = self.public / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{path.name}.tmp").write_bytes(data)
        path.with_name(f"{path.name}.tmp").replace(path)

    def signed(self, role: str, version: int | None = None) -> dict[str, Any]:
        """The signed part of some metadata at the public place."""
        file = f"metadata/{role}.json" if version is None else f"metadata/{version}.{role}.json"
        found: dict[str, Any] = json.loads((self.public / file).read_bytes())["signed"]
        return found

    def snapshot(self) -> dict[str, int]:
        """The version of each role, by the present snapshot."""
        version = self.signed("timestamp")["meta"]["snapshot.json"]["version"]
        meta = self.signed("snapshot", version)["meta"]
        return {role.removesuffix(".json"): each["version"] for role, each in meta.items()}
