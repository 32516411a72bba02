"""Routes: what torchvision's functions for downloads do while a cache serves them.

Each has the name, parameters and result of the one that it replaces. Where a file came from is
remembered by its path, so that what torchvision unpacks later is known by its hash; nothing is
believed of a file that has changed since. What is no matter of the cache goes torchvision's own
way: Google Drive, and archives that did not come through the cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from torchvision.datasets import imagenet, utils

from dscache import Cache, bars
from dscache.errors import NotCached
from dscache.integrations.linking import bring, is_linked, silent, unplaced
from dscache.integrations.torchvision.extracting import extract_apart, recipe_for, result_of
from dscache.integrations.torchvision.failures import translated
from dscache.integrations.torchvision.members import Identity, Members, identity_of

StrPath = str | os.PathLike[str]

#: Nothing is ever downloaded from there: people do that, once they have registered.
_IMAGENET = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"


class Origin(msgspec.Struct, frozen=True):
    """Where a file came from: its URL, its hash and name as the cache has them, and which file it
    was when that was known.
    """

    url: str
    known_hash: str | None
    name: str
    identity: Identity = ()


class Routes:
    """The functions, for one cache; `own` are torchvision's by name."""

    def __init__(self, cache: Cache, own: Mapping[str, Callable[..., Any]]) -> None:
        self._cache = cache
        self._own = own
        self._origins: dict[str, Origin] = {}
        self._members = Members(utils.calculate_md5)

    def check_integrity(self, fpath: StrPath, md5: str | None = None) -> bool:
        """True for the right file. What is a link to a file that has proven its md5 is not read."""
        if md5 is None or self._has_proven(fpath, md5):
            return bool(self._own["check_integrity"](fpath))
        found = self._members.md5(Path(fpath))
        return found == md5 if found else bool(self._own["check_integrity"](fpath, md5))

    def download_url(
        self,
        url: str,
        root: StrPath,
        filename: StrPath | None = None,
        md5: str | None = None,
        max_redirect_hops: int = 3,
    ) -> None:
        """Have the file under `root`, as a link to the cache, which downloads it if need be.

        What nothing proves goes torchvision's own way, as the million pictures of SBU.
        """
        if md5 is None or _is_on_drive(url):
            self._own["download_url"](url, root, filename, md5, max_redirect_hops)
        else:
            self._bring(url, _known(md5), _place(url, root, filename))

    def extract_archive(
        self, from_path: StrPath, to_path: StrPath | None = None, remove_finished: bool = False
    ) -> StrPath:
        """Unpack: by links to what the cache has unpacked once, where it has the archive."""
        archive = Path(from_path)
        folder = archive.parent if to_path is None else Path(to_path)
        recipe, origin = recipe_for(archive), self._origin(archive)
        is_done = recipe and origin and self._unpack(_proven(origin, archive), recipe, folder)
        if not is_done:
            extract_apart(self._own["extract_archive"], archive, folder)
        if remove_finished:
            archive.unlink()
        result = result_of(archive, folder)
        return os.fspath(result) if isinstance(from_path, str) else result

    def download_and_extract_archive(
        self,
        url: str,
        download_root: StrPath,
        extract_root: StrPath | None = None,
        filename: StrPath | None = None,
        md5: str | None = None,
        remove_finished: bool = False,
    ) -> None:
        """Both; what is not here yet is unpacked while it arrives."""
        archive = _place(url, download_root, filename)
        folder = archive.parent if extract_root is None else Path(extract_root)
        known_hash = _known(md5) if md5 else None
        if _is_on_drive(url):
            self._own["download_url"](url, download_root, filename, md5)
        elif known_hash and not os.path.lexists(archive) and (recipe := recipe_for(archive)):
            self._unpack(Origin(url, known_hash, archive.name), recipe, folder, offline=None)
            if not remove_finished:
                self._bring(url, known_hash, archive)
            return
        elif known_hash or not archive.is_file():  # else torchvision takes it for the right one
            self._bring(url, known_hash, archive)
        self.extract_archive(archive, folder, remove_finished)

    def _verify_archive(self, root: StrPath, file: str, md5: str) -> None:
        """Have an archive of ImageNet under `root`: one's own, else a link to that of the cache."""
        path = Path(root, file)
        if not path.exists():
            with suppress(NotCached):  # torchvision says what to do
                bring(self._cache, _IMAGENET, _known(md5), path, offline=True, progress=silent)
        self._own["_verify_archive"](root, file, md5)
        self._remember(path, _IMAGENET, _known(md5))

    def parse_train_archive(
        self, root: StrPath, file: str | None = None, folder: str = "train"
    ) -> None:
        """Have the images of ImageNet in their folders, each an archive in the archive."""
        name, md5 = imagenet.ARCHIVE_META["train"]
        origin = Origin(_IMAGENET, _known(md5), name)
        if not self._unpack(origin, "tar+tar", Path(root, folder)):
            self._own["parse_train_archive"](root, file, folder)

    def _has_proven(self, path: StrPath, md5: str) -> bool:
        origin = self._origin(path)
        if origin is None or origin.known_hash != _known(md5):
            return False
        return is_linked(self._cache, origin.url, origin.known_hash, Path(path))

    def _unpack(
        self, origin: Origin, recipe: str, folder: Path, *, offline: bool | None = True
    ) -> bool:
        """Put what an archive holds into a folder; False if the cache has not got it."""
        with translated(), bars() as progress:
            found = self._cache.retrieve_all(
                origin.url,
                origin.known_hash,
                fname=origin.name,
                unpack=recipe,
                into=folder,
                force=True,
                offline=offline,
                keep_archives=True,  # until the archive has its name under `root`
                progress=unplaced(progress),
            )
            if offline and isinstance(found.error, NotCached):
                return False
            found.unwrap()
            view = self._cache.retrieve(
                origin.url, origin.known_hash, fname=origin.name, unpack=recipe, progress=silent
            )
        if view.is_dir():
            self._members.add(folder, view)
        return True

    def _bring(self, url: str, known_hash: str | None, path: Path) -> None:
        with translated(), bars() as progress:
            bring(self._cache, url, known_hash, path, progress=progress)
        self._remember(path, url, known_hash)

    def _remember(self, path: Path, url: str, known_hash: str | None) -> None:
        self._origins[os.path.abspath(path)] = Origin(url, known_hash, path.name, identity_of(path))

    def _origin(self, path: StrPath) -> Origin | None:
        """Where a file came from, unless it is another one by now."""
        origin = self._origins.get(os.path.abspath(path))
        if origin is None or not os.path.exists(path):
            return None
        return origin if origin.identity == identity_of(path) else None


def _place(url: str, root: StrPath, filename: StrPath | None) -> Path:
    """Where torchvision has the file of a URL."""
    return Path(os.path.expanduser(root), filename or os.path.basename(url))


def _known(md5: str) -> str:
    return f"md5:{md5}"


def _proven(origin: Origin, archive: Path) -> Origin:
    """The origin with a hash: torchvision has none for some files, and the cache asks for one."""
    if origin.known_hash:
        return origin
    with archive.open("rb") as file:
        return replace(origin, known_hash=hashlib.file_digest(file, "sha256").hexdigest())


def _is_on_drive(url: str) -> bool:
    return utils._get_google_drive_file_id(url) is not None
