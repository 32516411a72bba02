"""What people decide about a registry and its datasets: `choices/<registry>.toml`.

Names, words, versions, and how files are unpacked. Sizes, hashes and URLs are facts and stand
elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import tomli


class FileChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs for one file; where nothing is said, the dataset's choice holds."""

    unpack: str | None = None
    unpack_to: str | None = None
    manual: str | None = None


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people decide about a dataset.

    Attributes:
        license: where no fact states one, or a better one than the facts; see `license_source`.
        homepage: where the facts have none, or an outdated one.
        unpack: unpack every file whose name says how.
        unpack_to: folder for the members; `{stem}` stands for the file's name without suffix.
        manual: how a person gets a file; `{path}` stands for its name.
        without: beginnings of URLs in the facts that are not used.
        moving: why addresses of a branch can be relied on.
        blob: the registry holds the bytes.
        remark: a comment at the head of the entry.
    """

    summary: str
    version: str = "1"
    license: str = ""
    license_source: str = ""
    homepage: str = ""
    citation: str = ""
    aliases: tuple[str, ...] = ()
    unpack: bool = False
    unpack_to: str = ""
    manual: str = ""
    without: tuple[str, ...] = ()
    moving: str = ""
    blob: bool = False
    remark: str = ""
    files: Mapping[str, FileChoice] = msgspec.field(default_factory=dict)


class Chosen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A registry: what its `registry.toml` says, and its datasets by name."""

    title: str
    description: str
    datasets: Mapping[str, Choice]


def read(folder: Path) -> dict[str, Chosen]:
    """The choices of all registries, by the registry's name."""
    return {
        file.stem: msgspec.convert(tomli.loads(file.read_text("utf-8")), Chosen)
        for file in sorted(folder.glob("*.toml"))
    }
