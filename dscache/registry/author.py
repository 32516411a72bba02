"""Writing a registry: starting one, adding versions, withdrawing them, and its index.

What a version holds never changes once it is there: other content needs another version. The
texts may change, and mirrors may be added.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import msgspec
from msgspec import structs

from dscache import disk, filesystem
from dscache.digest import sums_of
from dscache.errors import DscacheError, InvalidFile, NotFound, StorageError, UsageError
from dscache.model import is_name, is_version
from dscache.registry import blobs, index, pooch
from dscache.registry.entries import Document, dataset
from dscache.registry.order import header
from dscache.registry.places import HEADER, INDEX, Folder
from dscache.registry.rendering import render, with_key
from dscache.registry.rules import located, problems, text_problem, url_error
from dscache.registry.tables import FORMAT, ArtifactEntry, Entry, EntryName, RegistryEntry

#: Downloads a URL: the path, size in bytes and sha256 of the file.
FetchUrl = Callable[[str], tuple[str, int, str]]

_TEXTS = ("summary", "license", "homepage", "citation")


class Draft(msgspec.Struct, frozen=True):
    """What an author says of a new version.

    Attributes:
        version: default: the current one, or "1" for a new dataset.
        unpack: recipe for every file; empty to use them as they are.
        base_url: where the local files will be found, by their names; empty: the registry itself
            takes them in.
    """

    name: str
    version: str = ""
    summary: str = ""
    license: str = ""
    homepage: str = ""
    citation: str = ""
    unpack: str = ""
    base_url: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise UsageError(f"{self.name!r} cannot be the name of a dataset")
        if self.version and not is_version(self.version):
            raise UsageError(f"{self.version!r} cannot be a version")


def init(folder: str, name: str, title: str = "") -> None:
    """Start a registry in a folder.

    Raises:
        UsageError: the name or the title is malformed.
        StorageError: there is one already, or the disk does not take it.
    """
    if not is_name(name):
        raise UsageError(f"{name!r} cannot be the name of a registry")
    _refuse_text(title, "title")
    if os.path.lexists(f"{folder}/{HEADER}"):
        raise StorageError(f"there is a registry in {folder} already", path=folder)
    _publish(folder, HEADER, render(RegistryEntry(format=FORMAT, name=name, title=title)))


def name_of(folder: str) -> str:
    """The name of the registry in a folder.

    Raises:
        InvalidFile: there is none.
    """
    return header(Folder(folder)).name


def new(folder: str, draft: Draft, sources: Sequence[str], fetch_url: FetchUrl) -> str:
    """Write a version of a dataset from local files and URLs; the name of the entry's file.

    Args:
        sources: paths and URLs, each one file.

    Raises:
        UsageError: a source is neither a file nor the URL of one.
        InvalidFile: there is other content under that version, or the entry would break a rule.
        StorageError: a file cannot be read, or the registry's disk does not take it.
        As `fetch_url` does.
    """
    header(Folder(folder))
    for source in sources:
        _refuse_source(source, bool(draft.base_url))
    taken: list[blobs.Added] = []
    try:
        artifacts = [_artifact(folder, draft, source, fetch_url, taken) for source in sources]
        return publish(folder, draft, artifacts)
    except DscacheError:
        for added in taken:
            if added.is_new:
                filesystem.unlink(f"{folder}/{blobs.file(added.sha256)}")
        raise


def new_from_pooch(folder: str, draft: Draft, file: str) -> str:
    """Write a version of a dataset that holds the files of a Pooch registry file.

    Raises:
        NotFound: there is no such file.
        InvalidFile: as `new`; or it is not a Pooch registry file.
    """
    return publish(folder, draft, pooch.read(file, draft.base_url, unpack=draft.unpack))


def publish(folder: str, draft: Draft, artifacts: Iterable[ArtifactEntry]) -> str:
    """Write a version of a dataset; the name of the entry's file.

    A version that is there already keeps its content, gets the texts that are given, and the
    sources that it did not have. A new one becomes the current one.

    Raises:
        InvalidFile: there is other content under that version, or the entry would break a rule.
        StorageError: the registry's disk does not take it.
    """
    header(Folder(folder))
    current = _read(folder, EntryName(draft.name))
    version = draft.version or (current.version if current else "1")
    entry = Entry(
        version=version,
        artifacts=list(artifacts),
        **{key: getattr(draft, key) for key in _TEXTS},
    )
    name = EntryName(draft.name)
    for problem in problems(entry, local=True):
        raise problem.located(str(name))
    known = current
    if current is None or current.version != version:
        name = EntryName(draft.name, version)
        known = _read(folder, name)
    if known:
        _refuse_other_content(draft, known, entry)
        merged = _merged(known, entry)
        if merged != known:
            _publish(folder, str(name), render(merged))
        return str(name)
    if current:
        _keep(folder, EntryName(draft.name, current.version))
    _publish(folder, f"{draft.name}.toml", render(entry))
    return f"{draft.name}.toml"


def yank(folder: str, name: str, version: str, reason: str) -> list[str]:
    """Mark a version as withdrawn: who fetches it is told why. The names of the files changed.

    Raises:
        UsageError: the reason is empty, or holds control characters.
        NotFound: there is no such version.
        InvalidFile: its entry is malformed.
        StorageError: the registry's disk does not take it.
    """
    if not reason.strip():
        raise UsageError("why is it withdrawn? A reason is needed")
    _refuse_text(reason, "reason")
    changed = []
    for file in (EntryName(name), EntryName(name, version)):
        entry = _read(folder, file)
        if entry and entry.version == version:
            with open(f"{folder}/{file}", "rb") as reader:
                data = with_key(reader.read(), "yanked", reason)
            _publish(folder, str(file), data or render(structs.replace(entry, yanked=reason)))
            changed.append(str(file))
    if not changed:
        raise NotFound(f"{folder} has no {name}@{version}", name=name)
    return changed


def write_index(folder: str) -> bool:
    """Write the index of a registry; False where it was up to date.

    Raises:
        InvalidFile: an entry, or the index that is there, is malformed.
        StorageError: the registry's disk does not take it.
    """
    place = Folder(folder)
    header(place)
    found = index.build(place, _raise)
    serial = 1
    if (data := place.read(INDEX)) is not None:
        try:
            known = index.decode(data)
        except InvalidFile as error:
            hint = "remove it to begin again with serial 1"
            raise located(InvalidFile(str(error), hint=hint), place.path(INDEX)) from error
        if known.datasets == found.datasets:
            return False
        serial = known.serial + 1
    _publish(folder, INDEX, index.encode(structs.replace(found, serial=serial)))
    return True


def _raise(error: DscacheError) -> NoReturn:
    raise error


def _refuse_text(text: str, what: str) -> None:
    """No file is written that nobody could read afterwards."""
    for problem in text_problem(text, what):
        raise UsageError(f"{what}: {problem.error}")


def _refuse_source(source: str, has_base_url: bool) -> None:
    if _is_url(source):
        if error := url_error(source, local=True, only_weak=False):
            raise error
        if not _file_name(source):
            raise UsageError(f"{source} names no file")
    elif not os.path.isfile(source):
        hint = "name the files one by one, or pack them" if os.path.isdir(source) else ""
        raise UsageError(f"{source} is neither a file nor a URL", hint=hint)


def _is_url(source: str) -> bool:
    return "://" in source or source.startswith("doi:")


def _file_name(source: str) -> str:
    """The last part of a path or URL."""
    if not _is_url(source):
        return os.path.basename(source)
    path = urllib.parse.urlsplit(source).path
    return urllib.parse.unquote(path.rpartition("/")[2])


def _artifact(
    folder: str, draft: Draft, source: str, fetch_url: FetchUrl, taken: list[blobs.Added]
) -> ArtifactEntry:
    """Size and hash of a source, which is taken in unless its bytes stay where they are."""
    urls: list[str] = []
    if _is_url(source):
        urls = [source]
        _, size, sha256 = fetch_url(source)
    else:
        with disk.storage_errors(f"{source} cannot be taken in"):
            if draft.base_url:
                urls = [pooch.joined(draft.base_url, _file_name(source))]
                size, sha256 = os.path.getsize(source), sums_of(source)["sha256"]
            else:
                taken.append(added := blobs.add(folder, source))
                size, sha256 = added.size, added.sha256
    return ArtifactEntry(
        path=_file_name(source),
        size=size,
        hash=f"sha256:{sha256}",
        urls=urls,
        blob=not urls,
        unpack=draft.unpack,
    )


def _read(folder: str, name: EntryName) -> Entry | None:
    """An entry of the registry, or None.

    Raises:
        InvalidFile: it is malformed, or another name for a dataset.
    """
    document: Document | None = Folder(folder).document(str(name))
    if document is None:
        return None
    for problem in document.problems:
        raise problem.located(f"{folder}/{name}")
    if not isinstance(document.entry, Entry):
        raise InvalidFile(
            f"{folder}/{name}: the name is taken, as another name for {document.entry.see}"
        )
    return document.entry


def _refuse_other_content(draft: Draft, known: Entry, entry: Entry) -> None:
    if dataset(known, "", "", "").content != dataset(entry, "", "", "").content:
        raise InvalidFile(
            f"{draft.name}@{known.version} is there already, with other content",
            hint="what a version holds never changes: give another one with --version",
            name=draft.name,
            version=known.version,
        )


def _merged(known: Entry, entry: Entry) -> Entry:
    """An entry with the texts and sources of a new one of the same content."""
    texts = {key: getattr(entry, key) or getattr(known, key) for key in _TEXTS}
    given = {each.path: each for each in entry.artifacts}
    artifacts = [_with_sources(each, given[each.path]) for each in known.artifacts]
    return structs.replace(known, **texts, artifacts=artifacts)


def _with_sources(known: ArtifactEntry, given: ArtifactEntry) -> ArtifactEntry:
    urls = list(dict.fromkeys((*known.urls, *given.urls)))
    size = given.size if known.size is None else known.size
    return structs.replace(known, urls=urls, blob=known.blob or given.blob, size=size)


def _keep(folder: str, name: EntryName) -> None:
    """Keep the current entry under the name of its version, as it is, before it is replaced."""
    if not os.path.exists(f"{folder}/{name}"):
        with open(f"{folder}/{name.dataset}.toml", "rb") as reader:
            _publish(folder, str(name), reader.read())


def _publish(folder: str, file: str, data: bytes) -> None:
    with disk.storage_errors(f"{folder}/{file} cannot be written"):
        filesystem.publish_bytes(data, f"{folder}/{file}", durable=True)
