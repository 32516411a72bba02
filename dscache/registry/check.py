"""Checking a registry before it is published: all that is wrong in it, and all that is unwise.

What breaks a rule of the format is an error, since no fetch would accept it. Everything else that
its readers would regret is a warning. One broken file hides nothing of the others.
"""

from __future__ import annotations

import os
import urllib.parse

import msgspec

from dscache.errors import DscacheError, InvalidFile, NotFound
from dscache.model import Manifest
from dscache.registry import advice, blobs, index, manifest
from dscache.registry.entries import Document, decode_header, digests_of
from dscache.registry.places import HEADER, INDEX, Folder, read_limited
from dscache.registry.rules import is_local_path
from dscache.registry.tables import (
    Alias,
    ArtifactEntry,
    Entry,
    EntryName,
    ManifestEntry,
    RegistryEntry,
    load_toml,
    unknown_keys,
)


class Finding(msgspec.Struct, frozen=True):
    """Something to mend: in which file, under which key (empty: the file as a whole), and what."""

    file: str
    key: str
    message: str


class Report(msgspec.Struct, frozen=True):
    """All findings, by file. Without errors the registry can be used."""

    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]


def check(folder: str, *, reads_blobs: bool = True) -> Report:
    """Check the registry in a folder: every file, and how they fit together.

    Args:
        reads_blobs: compare the bytes that it holds with their hashes; else that they are there
            is enough.

    Raises:
        NotFound: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise NotFound(f"there is no folder {folder}", path=folder)
    return _Check(folder, reads_blobs).report()


class _Check:
    """Collects what is found in one folder."""

    def __init__(self, folder: str, reads_blobs: bool) -> None:
        self._folder = folder
        self._reads_blobs = reads_blobs
        self._base = Folder(folder).base
        self._errors: list[Finding] = []
        self._warnings: list[Finding] = []
        self._documents: dict[EntryName, Document] = {}
        self._blobs: set[str] = set()

    def report(self) -> Report:
        """Look at everything, single files first."""
        files = sorted(os.listdir(self._folder))
        self._check_header()
        for file in files:
            if file.lower().endswith(".toml") and file != HEADER:
                self._check_entry(file)
        self._check_aliases()
        self._check_versions()
        if not self._errors:  # else nobody knows which bytes the broken entries mean
            for stray in blobs.strays(self._folder, self._blobs):
                self._warn(stray, "", "no entry names these bytes")
        if INDEX in files:
            self._check_index()
        return Report(_by_file(self._errors), _by_file(self._warnings))

    def _error(self, file: str, key: str, message: str) -> None:
        self._errors.append(Finding(file, key, message))

    def _warn(self, file: str, key: str, message: str) -> None:
        self._warnings.append(Finding(file, key, message))

    def _refuse(self, file: str, error: DscacheError, key: str = "") -> None:
        key = key or str(error.facts.get("key", ""))
        hint = f" ({error.hint})" if error.hint else ""
        self._error(file, key, str(error).removeprefix(f"{key}: ") + hint)

    def _read(self, file: str) -> bytes | None:
        """The bytes of a file; None, and an error, where it has none to give."""
        try:
            return read_limited(f"{self._folder}/{file}")
        except OSError as error:
            self._error(file, "", f"cannot be read: {error.strerror}")
        except InvalidFile as error:
            self._refuse(file, error)
        return None

    def _check_header(self) -> None:
        if (data := self._read(HEADER)) is None:
            return
        try:
            decode_header(data)
            unknown = unknown_keys(load_toml(data), RegistryEntry)
        except InvalidFile as error:
            self._refuse(HEADER, error)
            return
        for key in unknown:
            self._error(HEADER, key, "unknown key")

    def _check_entry(self, file: str) -> None:
        name = EntryName.of(file)
        if name is None:
            self._error(file, "", "neither <dataset>.toml nor <dataset>@<version>.toml")
        if (data := self._read(file)) is None:
            return
        try:
            document = Document(data, local=True)
        except InvalidFile as error:
            self._refuse(file, error)
            return
        for key in document.unknown:
            self._error(file, key, "unknown key")
        for problem in document.problems:
            self._refuse(file, problem.error, problem.key)
        if name and not document.problems:
            self._check_sound_entry(file, name, document)

    def _check_sound_entry(self, file: str, name: EntryName, document: Document) -> None:
        entry = document.entry
        if isinstance(entry, Alias) and name.version:
            self._error(file, "see", "an alias has no version")
            return
        self._documents[name] = document
        if isinstance(entry, Alias):
            return
        if name.version and entry.version != name.version:
            message = f"{entry.version!r} stands in a file for {name.version!r}"
            self._error(file, "version", message)
        self._warnings += [Finding(file, key, text) for key, text in advice.on_entry(entry)]
        found = document.dataset(name.dataset, "", self._base)
        for number, artifact in enumerate(entry.artifacts):
            self._check_bytes(file, f"artifacts[{number}]", artifact)
        if entry.manifest and found.manifest:
            self._check_bytes(file, "manifest", entry.manifest)
            self._check_lines(file, entry.manifest, found.manifest)

    def _check_bytes(self, file: str, key: str, each: ArtifactEntry | ManifestEntry) -> None:
        """The registry's own files that an entry names: blobs, and relative URLs."""
        for number, url in enumerate(each.urls):
            parts = urllib.parse.urlsplit(url)
            inside = not parts.scheme and not is_local_path(url)
            path = f"{self._folder}/{urllib.parse.unquote(parts.path)}"
            if inside and not os.path.isfile(path):
                self._warn(file, f"{key}.urls[{number}]", f"the registry has no {url}")
        if not each.blob:
            return
        digests = digests_of(each)
        self._blobs |= {digest.hex for digest in digests if digest.algorithm == "sha256"}
        if self._reads_blobs:
            fault = blobs.fault(self._folder, digests, each.size)
        else:
            fault = blobs.absence(self._folder, digests)
        if fault:
            self._error(file, f"{key}.blob", fault)

    def _check_lines(self, file: str, entry: ManifestEntry, listed: Manifest) -> None:
        """The lines of a manifest that lies in the registry itself."""
        digest = listed.file.identity
        path = f"{self._folder}/{blobs.file(digest.hex)}" if digest else ""
        if not entry.blob or not os.path.isfile(path):
            return
        try:
            for text in advice.on_lines(manifest.read(path, listed, local=True)):
                self._warn(file, "manifest", text)
        except DscacheError as error:
            self._refuse(file, error, "manifest")

    def _check_aliases(self) -> None:
        versions = {name.dataset for name in self._documents if name.version}
        for name, document in self._documents.items():
            if not isinstance(document.entry, Alias):
                continue
            name_of_target = EntryName(document.entry.see)
            target = self._documents.get(name_of_target)
            if isinstance(target.entry, Alias) if target else not self._has(name_of_target):
                message = f"{document.entry.see!r} is not a dataset of this registry"
                self._error(str(name), "see", message)
            if name.dataset in versions:
                self._error(str(name), "see", f"hides {name.dataset}@… under the same name")

    def _check_versions(self) -> None:
        spelled: dict[str, EntryName] = {}
        for name, document in self._documents.items():
            if not name.version:
                continue
            other = spelled.setdefault(str(name).lower(), name)
            if other != name:
                self._warn(str(name), "version", f"differs from {other} only by case")
            current = self._documents.get(EntryName(name.dataset))
            if current is None:
                if not self._has(EntryName(name.dataset)):
                    self._warn(
                        str(name), "", f"there is no {name.dataset}.toml, no current version"
                    )
            elif isinstance(current.entry, Entry) and current.entry.version == name.version:
                self._check_same(name, document, current)

    def _has(self, name: EntryName) -> bool:
        """True if there is such an entry, broken or not."""
        return os.path.exists(f"{self._folder}/{name}")

    def _check_same(self, name: EntryName, document: Document, current: Document) -> None:
        found = document.dataset(name.dataset, "", self._base)
        if found.content != current.dataset(name.dataset, "", self._base).content:
            message = f"{name.dataset}.toml has other content under this version"
            self._error(str(name), "version", message)

    def _check_index(self) -> None:
        if (data := self._read(INDEX)) is None:
            return
        try:
            known = index.decode(data)
        except InvalidFile as error:
            self._refuse(INDEX, error)
            return
        if self._errors:
            return
        found = index.build(Folder(self._folder), lambda error: self._refuse(INDEX, error))
        if found.datasets != known.datasets:
            self._warn(INDEX, "", "out of date; `dscache registry index` renews it")


def _by_file(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.file))
