"""What tests are made of: registries in folders, and the bytes that they speak of."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import random
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that cannot be compressed, the same for the same seed."""
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


# --- Archives -------------------------------------------------------------------------------------

#: What `tar` and `zip_of` make of a member: its bytes, or for a text a symbolic link to it.
Members = Mapping[str, bytes | str]


def tar(members: Members, packed: str = "", programs: Sequence[str] = ()) -> bytes:
    """A tar archive; `packed` is a recipe for single files by which it is compressed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, holds in members.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755 if name in programs else 0o644
            if isinstance(holds, str):
                member.type, member.linkname = tarfile.SYMTYPE, holds
                archive.addfile(member)
            else:
                member.size = len(holds)
                archive.addfile(member, io.BytesIO(holds))
    return pack(file.getvalue(), packed)


def zip_of(members: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def pack(data: bytes, packed: str) -> bytes:
    """The bytes compressed as a recipe says; "" leaves them as they are."""
    match packed:
        case "gzip":
            return gzip.compress(data, 1, mtime=0)
        case "bzip2":
            return bz2.compress(data, 1)
        case "xz":
            return lzma.compress(data, preset=0)
        case "zstd":
            return zstd.compress(data)
    return data
