"""Extracting: which archives the cache unpacks as torchvision would, and torchvision's own way.

torchvision goes by the name of a file alone. Where its result is another than the cache's, it keeps
its own way; that never writes through a link into the cache.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchvision.datasets import utils

#: Single compressed files, by what torchvision calls their compression.
_SINGLE = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}


def recipe_for(archive: Path) -> str:
    """How the cache unpacks what torchvision takes the file for; empty where only that can.

    Raises:
        RuntimeError: torchvision does not know such files.
    """
    suffix, kind, compression = utils._detect_file_type(archive)
    if kind is None:
        # torchvision takes the suffix out wherever it is: a.gz.gz gives a
        return _SINGLE.get(compression, "") if archive.name.count(suffix) == 1 else ""
    if kind == ".tar":
        return "tar"
    return "zip" if kind == ".zip" and compression is None else ""


def result_of(archive: Path, folder: Path) -> Path:
    """What torchvision's `extract_archive` returns: the folder, or the one file."""
    suffix, kind, _ = utils._detect_file_type(archive)
    return folder if kind else folder / archive.name.replace(suffix, "")


def extract_apart(extract: Callable[..., Any], archive: Path, folder: Path) -> None:
    """Unpack with torchvision's function, and then give the files their names.

    It would write into what stands there. That may be a link to a file of the cache, which root
    could change, and others could not replace.
    """
    if not folder.is_dir():
        extract(archive, folder)
        return
    with tempfile.TemporaryDirectory(prefix=".extracting-", dir=folder) as scratch:
        extract(archive, scratch)
        for parent, folders, names in os.walk(scratch):
            there = folder / Path(parent).relative_to(scratch)
            there.mkdir(exist_ok=True)
            links = [each for each in folders if os.path.islink(f"{parent}/{each}")]
            for name in (*names, *links):
                os.replace(f"{parent}/{name}", there / name)
