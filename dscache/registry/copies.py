"""What servers said of registry files, kept in the cache: one file for each, its facts on the first
line and the text below.

One file, so that text and validator are always of one answer; with a checksum, since these files
are not synced and a power cut may tear them. What is torn counts as never read.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import msgspec

from dscache import disk, filesystem
from dscache.digest import hasher
from dscache.malformed import MALFORMED
from dscache.registry.entries import Document
from dscache.registry.tables import too_long

#: Bytes that the first line takes at most.
_MOST_FACTS = 4096


class _Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first line. `checksum` is the xxh3_128 of the text; empty where the server had none."""

    checked: float
    validator: str = ""
    checksum: str = ""


class Copy(msgspec.Struct, frozen=True, dict=True):
    """One answer of a server.

    Attributes:
        checked: when the server last said so, in seconds since the epoch.
        data: the file; None where the server had none.
        validator: its ETag; empty if none.
    """

    checked: float
    data: bytes | None = None
    validator: str = ""

    @cached_property
    def document(self) -> Document | None:
        """The file as an entry; raises as `Document` does."""
        return None if self.data is None else Document(self.data, local=False)

    def age(self) -> float:
        """Seconds since the server was asked; a time in the future counts as long ago."""
        passed = time.time() - self.checked
        return passed if passed >= 0 else float("inf")


def load(path: str, limit: int = sys.maxsize) -> Copy | None:
    """The copy in a file, or None if there is none, or not a whole one.

    Raises:
        InvalidFile: it has more than `limit` bytes.
    """
    with suppress(OSError):
        if os.path.getsize(path) > limit + _MOST_FACTS:
            raise too_long(limit)
    return disk.parsed(path, _read)


def store(path: str, copy: Copy) -> None:
    """Keep a copy, in place of an earlier one.

    Raises:
        OSError: the disk does not take it.
    """
    data = copy.data or b""
    checksum = "" if copy.data is None else _checksum(data)
    facts = msgspec.json.encode(_Facts(copy.checked, copy.validator, checksum))
    filesystem.publish_bytes(facts + b"\n" + data, path)


def _read(path: str) -> Copy | None:
    line, _, data = Path(path).read_bytes().partition(b"\n")
    try:
        facts = msgspec.json.decode(line, type=_Facts)
    except MALFORMED:
        return None
    if not facts.checksum:
        return Copy(facts.checked)
    return Copy(facts.checked, data, facts.validator) if facts.checksum == _checksum(data) else None


def _checksum(data: bytes) -> str:
    sums = hasher("xxh3_128")
    sums.update(data)
    return sums.hexdigest()
