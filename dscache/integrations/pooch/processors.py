"""Pooch's processors, with what they unpack coming from the cache.

An archive is unpacked once for all who ask, under dscache's rules for members, and linked to where
Pooch would have unpacked it. Values never change: one processor serves any number of archives.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pooch import Decompress as PlainDecompress
from pooch import Untar as PlainUntar
from pooch import Unzip as PlainUnzip
from pooch import file_hash, get_logger
from pooch.processors import ExtractorProcessor

from dscache import Cache
from dscache.errors import NotFound, UsageError
from dscache.integrations import linking
from dscache.integrations.pooch.arriving import Wanted

__all__ = ["Decompress", "ExtractorProcessor", "Untar", "Unzip", "processed"]

#: By the module that Pooch reads a compressed file with: our recipe, and the suffix that it takes.
_SINGLES = {"gzip": ("gzip", ".gz"), "bz2": ("bzip2", ".bz2"), "lzma": ("xz", ".xz")}
#: How files of the format before xz begin, which `lzma` reads, and no recipe.
_OLD_LZMA = b"\x5d\x00\x00"


def processed(processor: Any, wanted: Wanted, action: str, manager: Any) -> Any:
    """What a processor makes of a file that is here; without one its path."""
    if processor is None:
        return str(wanted.path)
    if isinstance(processor, _Unpacking):
        return processor.unpack(str(wanted.path), action, wanted.known_hash)
    return processor(str(wanted.path), action, manager)


class _Unpacking:
    """What the processors here have in common: they ask the cache, by the hash of the archive."""

    def __call__(self, fname: str, action: str, manager: Any) -> Any:
        """What Pooch calls: unpack a file, unless that is done and `action` is "fetch"."""
        name = manager and os.path.relpath(fname, manager.abspath).replace(os.sep, "/")
        return self.unpack(fname, action, manager.registry.get(name) if manager else None)

    def unpack(self, fname: str, action: str, known_hash: str | None) -> Any:
        """The same with the hash of the file, which is computed where dscache needs another."""
        if known_hash:
            try:
                return self._unpack(fname, action, known_hash)
            except UsageError:  # a hash that is not in dscache's grammar
                pass
        return self._unpack(fname, action, f"sha256:{file_hash(fname)}")

    def _unpack(self, fname: str, action: str, known: str) -> Any:
        raise NotImplementedError


class _Extraction(_Unpacking):
    """What `Unzip` and `Untar` have in common. They are Pooch's classes, too."""

    members: list[str] | None
    extract_dir: str | None
    suffix: str
    _recipe: ClassVar[str]
    _word: ClassVar[str]

    def _unpack(self, fname: str, action: str, known: str) -> list[str]:
        """The paths of all files in the folder, or of the wanted members."""
        where = fname + self.suffix if self.extract_dir is None else self.extract_dir
        folder = os.path.join(os.path.dirname(fname), where)
        if action != "fetch" or not self._is_done(fname, known, folder):
            self._say(fname, folder)
            self._place(fname, known, folder)
        return sorted(path for path in _files(folder) if self._wants(os.path.relpath(path, folder)))

    def _place(self, fname: str, known: str, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        patterns = self._patterns()
        if patterns == []:
            return
        try:
            linking.unpack(Cache(), Path(fname), known, self._recipe, Path(folder), files=patterns)
        except NotFound:  # members that the archive does not have, of which Pooch says nothing
            pass

    def _is_done(self, fname: str, known: str, folder: str) -> bool:
        members = self.members or self._in_archive(fname, known)
        return os.path.exists(folder) and all(
            os.path.exists(os.path.join(folder, member)) for member in members
        )

    def _in_archive(self, fname: str, known: str) -> list[str]:
        """Names of the members; where the cache has them, the archive is not read."""
        found = Cache().retrieve_all(
            fname,
            known,
            fname=os.path.basename(fname),
            unpack=self._recipe,
            offline=True,
            progress=linking.silent,
        )
        if found.error or not found.path:
            names: list[str] = self._all_members(fname)  # type: ignore[attr-defined]
            return names
        return [os.path.relpath(path, found.path) for path in _files(str(found.path))]

    def _say(self, fname: str, folder: str) -> None:
        log = get_logger()
        if self.members is None:
            log.info("%s contents of '%s' to '%s'", self._word, fname, folder)
        for member in self.members or ():
            log.info("Extracting '%s' from '%s' to '%s'", member, fname, folder)

    def _patterns(self) -> list[str] | None:
        """Patterns of what Pooch takes for a member: whatever begins with its name."""
        if self.members is None:
            return None
        return [f"{glob.escape(os.path.normpath(member))}*" for member in self.members]

    def _wants(self, relative: str) -> bool:
        return self.members is None or any(
            relative.startswith(os.path.normpath(member)) for member in self.members
        )


class Unzip(_Extraction, PlainUnzip):  # type: ignore[misc]  # Pooch has no types
    """As `pooch.Unzip`; the files are links to the cache, to be read only."""

    _recipe, _word = "zip", "Unzipping"


class Untar(_Extraction, PlainUntar):  # type: ignore[misc]
    """As `pooch.Untar`; the files are links to the cache, to be read only."""

    _recipe, _word = "tar", "Untarring"


class Decompress(_Unpacking, PlainDecompress):  # type: ignore[misc]
    """As `pooch.Decompress`; the file is a link to the cache, to be read only."""

    method: str
    name: str | None

    def _unpack(self, fname: str, action: str, known: str) -> str:
        """The path of what the file holds."""
        path = Path(fname)
        target = path.parent / (self.name or f"{path.name}.decomp")
        if action == "fetch" and target.exists():
            return str(target)
        if self.method in ("auto", "lzma", "xz") and _is_old_lzma(path):
            return str(PlainDecompress.__call__(self, fname, action, None))
        get_logger().info(
            "Decompressing '%s' to '%s' using method '%s'.", fname, target, self.method
        )
        recipe, suffix = _SINGLES[self._compression_module(fname).__name__]
        linking.unpack(Cache(), path, known, recipe, target.parent, fname=target.name + suffix)
        return str(target)


def _files(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from (os.path.join(parent, name) for name in names)


def _is_old_lzma(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_OLD_LZMA)) == _OLD_LZMA
