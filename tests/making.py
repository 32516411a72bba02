"""What tests are made of: registries in folders, and the bytes that they speak of."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_LARGE = 1 << 20


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that cannot be compressed, the same for the same seed."""
    return _large(size, seed) if size > _LARGE else random.Random(seed).randbytes(size)


@cache
def _large(size: int, seed: int) -> bytes:
    """Kept, since modules share them, and a process that is forked often had better be small."""
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    """The digest as registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def md5(data: bytes) -> str:
    """The weak digest as registries write it."""
    return f"md5:{hashlib.md5(data).hexdigest()}"


def artifact(path: str, data: bytes, *urls: str, **keys: Any) -> dict[str, Any]:
    """One artifact with the right hash and size; `keys` are added, None takes one away."""
    found = {"path": path, "hash": sha256(data), "size": len(data), "urls": list(urls)} | keys
    return {key: value for key, value in found.items() if value is not None}


class Shelf:
    """A registry in a folder."""

    def __init__(self, folder: Path, name: str = "shelf") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = name
        self.write("registry.toml", {"format": 1, "name": name})

    def add(
        self,
        name: str,
        artifacts: Sequence[Mapping[str, Any]],
        *,
        file: str | None = None,
        **keys: Any,
    ) -> None:
        """Write an entry; `keys` are those of its head."""
        self.write(file or f"{name}.toml", {"version": "1"} | keys | {"artifacts": artifacts})

    def write(self, file: str, table: Mapping[str, Any]) -> None:
        """Write a file of the registry."""
        lines = [f"{key} = {_toml(value)}" for key, value in table.items() if key != "artifacts"]
        for each in table.get("artifacts", ()):
            lines += ["", "[[artifacts]]", *(f"{key} = {_toml(each[key])}" for key in each)]
        (self.folder / file).write_text("\n".join(lines) + "\n", "utf-8")


def _toml(value: Any) -> str:
    """Strings, numbers, flags and lists look the same in TOML and JSON; tables stand inline."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)
