"""What an author has to publish: the files of a registry's folder, in the form in which they are
published, and the bytes that go with them.

It reads the folder, and asks the cache which files it knows; destinations it does not know.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256

import msgspec
from msgspec.structs import replace as changed

from dscache import disk
from dscache.call import Call
from dscache.digest import sums_of
from dscache.errors import IntegrityError, InvalidFile
from dscache.events import Notice
from dscache.model import Artifact
from dscache.publishing import forms
from dscache.publishing.forms import Part
from dscache.registry import blobs
from dscache.registry.check import check
from dscache.registry.entries import Document, dataset, digests_of
from dscache.registry.places import HEADER, Folder, read_limited
from dscache.registry.rendering import render
from dscache.registry.tables import Alias, Entry, EntryName


class Piece(msgspec.Struct, frozen=True):
    """Bytes that the registry is to hold for an entry.

    Attributes:
        of: whose they are, for people.
        size: None where nobody knows.
        path: where they are; empty: in the cache, or to be fetched as `artifact`.
    """

    of: str
    sha256: str
    size: int | None
    path: str = ""
    artifact: Artifact | None = None

    @property
    def key(self) -> str:
        """Where they belong, below the registry."""
        return blobs.file(self.sha256)


class Own(msgspec.Struct, frozen=True, dict=True):
    """A file of the registry as it is published; `entry` is None for `registry.toml`."""

    file: str
    data: bytes
    entry: Entry | Alias | None = None
    pieces: tuple[Piece, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """What tells it from other content."""
        return sha256_of(self.data)

    @property
    def name(self) -> EntryName:
        """What the name of an entry's file says."""
        found = EntryName.of(self.file)
        assert found is not None
        return found


class Source(msgspec.Struct, frozen=True, dict=True):
    """All that an author publishes.

    Attributes:
        header: its `registry.toml`.
        entries: by file. There is one for each version, under the name of the version, and those
            that say which one is current.
    """

    folder: str
    header: Own
    entries: Mapping[str, Own]

    @cached_property
    def contents(self) -> Mapping[str, Mapping[str, str]]:
        """The content identity of each version of each dataset."""
        found: dict[str, dict[str, str]] = {}
        for own in self.entries.values():
            if own.name.version and isinstance(own.entry, Entry):
                found.setdefault(own.name.dataset, {})[own.name.version] = content(own.entry)
        return found


def sha256_of(data: bytes) -> str:
    """The sha256 of a registry file in hex."""
    return sha256(data).hexdigest()


def content(entry: Entry) -> str:
    """The content identity of an entry."""
    return dataset(entry, "", "", "").content


def read(call: Call, folder: str, *, with_blobs: bool) -> Source:
    """Read the registry in a folder.

    Raises:
        NotFound: there is no such folder.
        InvalidFile: it has errors, of which the first is named.
        UnsafeError: an entry names a file of this machine, and not as a blob.
        IntegrityError: a file in it is not what its entry says.
        StorageError: it cannot be read.
    """
    folder = os.path.abspath(os.path.expanduser(folder))
    _refuse_errors(folder)
    reader = _Reader(call, folder, with_blobs)
    with disk.storage_errors(f"{folder} cannot be read"):
        names = [file for file in sorted(os.listdir(folder)) if EntryName.of(file)]
        entries = {file: reader.own(file) for file in names}
        header = Own(HEADER, read_limited(f"{folder}/{HEADER}"))
    for own in list(entries.values()):
        if isinstance(own.entry, Entry) and not own.name.version:
            # So that name@version goes on meaning this when another version is current.
            file = str(EntryName(own.name.dataset, own.entry.version))
            entries.setdefault(file, changed(own, file=file))
    found = Source(folder, header, entries)
    return changed(
        found, entries={file: _listing_versions(found, own) for file, own in entries.items()}
    )


def _listing_versions(source: Source, own: Own) -> Own:
    """The same; the current entry of a dataset says which versions there are."""
    if own.name.version or not isinstance(own.entry, Entry):
        return own
    versions = source.contents[own.name.dataset]
    entry, data = forms.with_versions(own.entry, own.data, versions)
    return changed(own, data=data, entry=entry)


def _refuse_errors(folder: str) -> None:
    """What is wrong with the bytes themselves turns out when they are uploaded."""
    errors = check(folder, reads_blobs=False).errors
    if not errors:
        return
    first = errors[0]
    where = f"{first.file}: {first.key}: " if first.key else f"{first.file}: "
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    raise InvalidFile(
        f"{folder} cannot be published: {where}{first.message}{more}",
        hint=f"`dscache registry check {folder}` shows all; nothing was uploaded",
        file=first.file,
        key=first.key,
    )


class _Reader:
    """Makes files to publish of those in a folder."""

    def __init__(self, call: Call, folder: str, with_blobs: bool) -> None:
        self._call = call
        self._folder = folder
        self._base = Folder(folder).base
        self._with_blobs = with_blobs

    def own(self, file: str) -> Own:
        data = read_limited(f"{self._folder}/{file}")
        document = Document(data, local=True)
        entry = document.entry
        if isinstance(entry, Alias):
            return Own(file, data, entry)
        found = document.dataset("", "", self._base)
        pieces: list[Piece] = []

        def hold(each: Part, artifact: Artifact) -> str:
            piece = self._piece(file, each, artifact)
            pieces.extend([piece] if piece else ())
            return piece.sha256 if piece else ""

        parts = {id(each): of for each, of in zip(entry.artifacts, found.artifacts, strict=True)}
        if entry.manifest and found.manifest:
            parts[id(entry.manifest)] = found.manifest.file
        form = forms.published(entry, lambda each: hold(each, parts[id(each)]))
        forms.refuse_unpublishable(form, file)
        return Own(file, data if form == entry else render(form), form, tuple(pieces))

    def _piece(self, file: str, each: Part, artifact: Artifact) -> Piece | None:
        """The bytes that are to be held for a part; None where they stay elsewhere."""
        of = f"{file.removesuffix('.toml')}/{artifact.path}"
        known = forms.sha256_of(each)
        if each.blob:
            return Piece(of, known, each.size, f"{self._folder}/{blobs.file(known)}")
        if inside := next(filter(forms.is_relative, each.urls), None):
            path = f"{self._folder}/{urllib.parse.unquote(urllib.parse.urlsplit(inside).path)}"
            if not os.path.isfile(path):
                return None
            return Piece(of, known or self._sum_of(path, each), each.size, path)
        if not (self._with_blobs and each.urls):
            return None
        known = known or self._call.store.blobs.known(digests_of(each)) or ""
        if not known:
            self._call.emit(
                Notice(f"{of} stays at its URLs: a blob needs a sha256, and nothing here knows it")
            )
            return None
        return Piece(of, known, each.size, artifact=changed(artifact, unpack="", unpack_to=""))

    def _sum_of(self, path: str, each: Part) -> str:
        digests = digests_of(each)
        sums = sums_of(path, [digest.algorithm for digest in digests])
        if wrong := sums.mismatch(digests):
            raise IntegrityError(f"{path} is not {wrong}, and was not uploaded", path=path)
        return sums["sha256"]
