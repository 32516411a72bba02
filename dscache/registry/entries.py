"""The registry file format: typed decoding of one entry, and its rules.

An entry is one small TOML file. Decoding gives a `Dataset` or an error that names file, key and
reason; `problems` gives all that is wrong at once, for `registry check`. Pure: bytes in, values
out.
"""

from __future__ import annotations

import tomllib
import urllib.parse
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from dscache.digest import Digest
from dscache.errors import DscacheError, InvalidFile, UnsafeError, UsageError
from dscache.model import (
    RECIPES,
    Artifact,
    Dataset,
    Manifest,
    check_path,
    collisions,
    content_of,
    is_name,
    is_version,
)
from dscache.urls import is_loopback

#: An entry describes one dataset; whoever has more than this to list uses a manifest.
MAX_ENTRY = 16 << 20

#: The `format` of registries that this version reads and writes.
FORMAT = 1

SCHEMES = frozenset({"https", "http", "ftp", "sftp", "doi", "file"})
_SIGNED = ("x-amz-signature", "x-goog-signature", "signature", "sig", "access_token", "token")
_PLAIN_SIZE = Annotated[int, msgspec.Meta(ge=0)]


class ArtifactEntry(msgspec.Struct, frozen=True):
    """One `[[artifacts]]` table, as it stands in the file."""

    path: str
    hash: str
    size: _PLAIN_SIZE | None = None
    checksums: list[str] = []
    urls: list[str] = []
    blob: bool = False
    manual: str = ""
    unpack: str = ""
    unpack_to: str = ""
    note: str = ""


class ManifestEntry(msgspec.Struct, frozen=True):
    """The `[manifest]` table: where the list of artifacts is."""

    hash: str
    size: _PLAIN_SIZE | None = None
    urls: list[str] = []
    blob: bool = False
    base_urls: list[str] = []
    path: str = "manifest.jsonl"


class Entry(msgspec.Struct, frozen=True):
    """A whole `<name>.toml`."""

    version: str
    summary: str = ""
    license: str = ""
    homepage: str = ""
    citation: str = ""
    yanked: str = ""
    artifacts: list[ArtifactEntry] = []
    manifest: ManifestEntry | None = None


class Alias(msgspec.Struct, frozen=True):
    """An `<alias>.toml`: another name for a dataset."""

    see: str


class RegistryEntry(msgspec.Struct, frozen=True):
    """The `registry.toml` of a registry."""

    format: int
    name: str
    title: str = ""
    description: str = ""
    homepage: str = ""


class ManifestLine(msgspec.Struct, frozen=True):
    """One line of a manifest."""

    path: str
    hash: str
    size: _PLAIN_SIZE | None = None
    urls: list[str] = []


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one key of an entry."""

    key: str
    error: DscacheError

    def located(self, file: str) -> DscacheError:
        """The error with file and key in front."""
        message = f"{self.key}: {self.error}" if self.key else str(self.error)
        facts = {**self.error.facts, "key": self.key}
        return located(type(self.error)(message, hint=self.error.hint, **facts), file)


def located(error: DscacheError, file: str) -> DscacheError:
    """The same error with the name of the file in front."""
    return type(error)(f"{file}: {error}", hint=error.hint, **{**error.facts, "file": file})


class Document:
    """One registry file, decoded and checked: what a look-up needs of it.

    Attributes:
        entry: the entry or alias.
        unknown: keys that the format does not have.
        problems: broken rules, without the name of the file.
    """

    def __init__(self, data: bytes, *, local: bool) -> None:
        table = load_toml(data)
        self.entry = entry = decode(table)
        self.unknown = tuple(unknown_keys(table))
        self.problems = tuple(problems(entry, local=local)) if isinstance(entry, Entry) else ()
        self._datasets: dict[tuple[str, str, str], Dataset] = {}

    def dataset(self, name: str, registry: str, base: str) -> Dataset:
        """The dataset that the entry describes; see the function `dataset`."""
        key = name, registry, base
        if key not in self._datasets:
            assert isinstance(self.entry, Entry)
            self._datasets[key] = dataset(self.entry, name, registry, base)
        return self._datasets[key]


def load_toml(data: bytes) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InvalidFile: it is too long, not UTF-8 or not TOML.
    """
    if len(data) > MAX_ENTRY:
        raise InvalidFile(f"longer than {MAX_ENTRY} bytes")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidFile(f"not valid TOML: {error}") from error


def decode(table: dict[str, Any]) -> Entry | Alias:
    """The typed form of an entry's tables.

    Raises:
        InvalidFile: a key is missing or has the wrong type.
    """
    try:
        if "see" in table:
            return msgspec.convert(table, Alias)
        return msgspec.convert(table, Entry)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        key = where.rstrip("`").lstrip(".")
        raise InvalidFile(f"{key}: {reason}" if key else reason, key=key) from error


def unknown_keys(table: dict[str, Any]) -> Iterator[str]:
    """Keys that the format does not have."""
    if "see" in table:
        yield from sorted(table.keys() - {"see"})
        return
    yield from sorted(table.keys() - set(Entry.__struct_fields__))
    lines = table.get("artifacts")
    for number, each in enumerate(lines if isinstance(lines, list) else []):
        if isinstance(each, dict):
            known = set(ArtifactEntry.__struct_fields__)
            yield from (f"artifacts[{number}].{key}" for key in sorted(each.keys() - known))
    manifest = table.get("manifest")
    if isinstance(manifest, dict):
        known = set(ManifestEntry.__struct_fields__)
        yield from (f"manifest.{key}" for key in sorted(manifest.keys() - known))


def problems(entry: Entry, *, local: bool) -> Iterator[Problem]:
    """Every broken rule of an entry. `local`: the registry is a folder of this machine."""
    if not is_version(entry.version):
        yield Problem("version", InvalidFile(f"{entry.version!r} is not a version"))
    if bool(entry.artifacts) == bool(entry.manifest):
        yield Problem("artifacts", InvalidFile("either [[artifacts]] or [manifest] is needed"))
    for number, each in enumerate(entry.artifacts):
        yield from artifact_problems(each, f"artifacts[{number}]", local)
    if entry.manifest:
        yield from _manifest_problems(entry.manifest, local)
    for one, other in collisions(_places(entry.artifacts)):
        yield Problem("artifacts", InvalidFile(f"{one!r} and {other!r} cannot both be stored"))


def _places(artifacts: list[ArtifactEntry]) -> Iterator[str]:
    for each in artifacts:
        yield each.path


def artifact_problems(each: ArtifactEntry, key: str, local: bool) -> Iterator[Problem]:
    """Every broken rule of one artifact; `key` says where it stands."""
    yield from _path_problem(each.path, f"{key}.path")
    if each.unpack and each.unpack not in RECIPES:
        known = ", ".join(sorted(RECIPES))
        hint = "7z and rar archives cannot be unpacked; publish the files as tar or zip"
        reason = f"unknown recipe {each.unpack!r}; known are {known}"
        yield Problem(f"{key}.unpack", InvalidFile(reason, hint=hint))
    if each.unpack_to:
        yield from _path_problem(each.unpack_to, f"{key}.unpack_to")
    if not (each.urls or each.blob or each.manual):
        yield Problem(key, InvalidFile("no source: urls, blob or manual is needed"))
    digests = yield from _hash_problems([each.hash, *each.checksums], key)
    yield from _blob_problem(each.blob, digests, key)
    only_weak = bool(digests) and all(digest.weak for digest in digests)
    yield from _url_problems(each.urls, f"{key}.urls", local, only_weak)


def _manifest_problems(manifest: ManifestEntry, local: bool) -> Iterator[Problem]:
    yield from _path_problem(manifest.path, "manifest.path")
    if not (manifest.urls or manifest.blob):
        yield Problem("manifest", InvalidFile("no source: urls or blob is needed"))
    digests = yield from _hash_problems([manifest.hash], "manifest")
    yield from _blob_problem(manifest.blob, digests, "manifest")
    only_weak = bool(digests) and all(digest.weak for digest in digests)
    yield from _url_problems(manifest.urls, "manifest.urls", local, only_weak)
    yield from _url_problems(manifest.base_urls, "manifest.base_urls", local, False)


def _path_problem(path: str, key: str) -> Iterator[Problem]:
    try:
        check_path(path)
    except (UnsafeError, InvalidFile) as error:
        yield Problem(key, error)


def _hash_problems(texts: list[str], key: str) -> Generator[Problem, None, list[Digest]]:
    digests: list[Digest] = []
    for number, text in enumerate(texts):
        try:
            digests.append(Digest.parse(text))
        except UsageError as error:
            part = f"{key}.checksums[{number - 1}]" if number else f"{key}.hash"
            yield Problem(part, InvalidFile(str(error)))
    return digests


def _blob_problem(blob: bool, digests: list[Digest], key: str) -> Iterator[Problem]:
    if blob and not any(digest.algorithm == "sha256" for digest in digests):
        yield Problem(f"{key}.blob", InvalidFile("a blob of the registry needs a sha256"))


def _url_problems(urls: list[str], key: str, local: bool, only_weak: bool) -> Iterator[Problem]:
    for number, url in enumerate(urls):
        if error := _url_error(url, local, only_weak):
            yield Problem(f"{key}[{number}]", error)


def _url_error(url: str, local: bool, only_weak: bool) -> DscacheError | None:
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        return InvalidFile(f"{url!r} is not a URL: {error}")
    scheme = parts.scheme.lower()
    if parts.username or parts.password:
        return InvalidFile(f"the URL for {host} holds credentials")
    query = {name.lower() for name, _ in urllib.parse.parse_qsl(parts.query)}
    if not query.isdisjoint(_SIGNED):
        return InvalidFile(f"the URL for {host} is signed or holds a token")
    if any(ord(char) < 33 for char in url):
        return InvalidFile(f"{url!r} holds white space or control characters")
    if scheme == "file" or (not scheme and url.startswith("/")):
        return None if local else UnsafeError(f"{url!r} names a local file in a remote registry")
    if not scheme:
        return _relative_url_error(url, parts)
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        return InvalidFile(f"{url!r}: unknown protocol; known are {known}")
    if scheme == "http" and only_weak and not is_loopback(url):
        return InvalidFile(f"{url!r}: http needs a stronger hash than md5 or sha1")
    return None


def _relative_url_error(url: str, parts: urllib.parse.SplitResult) -> DscacheError | None:
    names = urllib.parse.unquote(parts.path).replace("\\", "/").split("/")
    if parts.netloc or ".." in names:
        return UnsafeError(f"{url!r} leads out of the registry")
    return None


def dataset(entry: Entry, name: str, registry: str, base: str) -> Dataset:
    """The dataset that an entry without problems describes.

    Args:
        registry: the name under which the user knows the registry.
        base: URL of the registry, ending in '/'; relative URLs and blobs are below it.
    """
    artifacts = tuple(_artifact(each, base) for each in entry.artifacts)
    manifest = _manifest(entry.manifest, base) if entry.manifest else None
    return Dataset(
        registry=registry,
        name=name,
        version=entry.version,
        content=content_of(artifacts, manifest),
        artifacts=artifacts,
        manifest=manifest,
        summary=entry.summary,
        license=entry.license,
        homepage=entry.homepage,
        citation=entry.citation,
        yanked=entry.yanked,
        base=base,
    )


def _artifact(each: ArtifactEntry, base: str) -> Artifact:
    digests = tuple(map(Digest.parse, (each.hash, *each.checksums)))
    return Artifact(
        path=each.path,
        hash=digests[0],
        size=each.size,
        checksums=digests[1:],
        urls=_sources(digests, each.blob, each.urls, base),
        manual=each.manual,
        unpack=each.unpack,
        unpack_to=each.unpack_to,
    )


def _manifest(each: ManifestEntry, base: str) -> Manifest:
    digest = Digest.parse(each.hash)
    urls = _sources((digest,), each.blob, each.urls, base)
    name = urls[0].rpartition("/")[2] if urls and not each.blob else each.path
    file = Artifact(path=name, hash=digest, size=each.size, urls=urls)
    return Manifest(file, tuple(_absolute(url, base) for url in each.base_urls))


def _sources(
    digests: tuple[Digest, ...], blob: bool, urls: list[str], base: str
) -> tuple[str, ...]:
    own = [
        f"{base}blobs/sha256/{digest.hex[:2]}/{digest.hex[2:]}"
        for digest in digests
        if blob and digest.algorithm == "sha256"
    ]
    return (*own, *(_absolute(url, base) for url in urls))


def _absolute(url: str, base: str) -> str:
    if url.startswith("/"):
        return f"file://{urllib.parse.quote(url)}"
    return url if urllib.parse.urlsplit(url).scheme else base + url


@lru_cache(maxsize=64)
def decode_header(data: bytes) -> RegistryEntry:
    """The content of a `registry.toml`.

    Raises:
        InvalidFile: it is malformed, or of a format that this version does not know.
    """
    try:
        header = msgspec.convert(load_toml(data), RegistryEntry)
    except msgspec.ValidationError as error:
        raise InvalidFile(str(error)) from error
    if header.format != FORMAT:
        raise InvalidFile(
            f"format: {header.format} is not known; this version reads {FORMAT}",
            hint="use a newer dscache",
        )
    if not is_name(header.name):
        raise InvalidFile(f"name: {header.name!r} cannot be the name of a registry")
    return header
