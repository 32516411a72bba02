"""The nouns that registries speak of: references, artifacts, datasets; and the grammar of names.

Pure values. Nothing here reads a file or knows where a dataset comes from; what a value of this
module says about names and paths has been checked (`interface`: names and artifact paths).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from dscache.digest import Digest
from dscache.errors import InvalidFile, UnsafeError, UsageError
from dscache.recipes import recipe_for, unpacked_path

# All rules in one pattern, since an index has many names: what is reserved, devices of Windows, and
# no dot at the end.
_NAME = re.compile(
    r"(?!(?:registry|index|blobs)\Z)(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|\Z))"
    r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9_-])?",
    re.ASCII,
)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
# Device names of Windows; a file of that name, with any extension, cannot be made there.
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{n}" for port in ("com", "lpt") for n in "0123456789\xb9\xb2\xb3"}
)


def is_name(text: str) -> bool:
    """True for a well-formed name of a dataset or registry."""
    return _NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """True for a well-formed version."""
    return _VERSION.fullmatch(text) is not None


def version_order(version: str) -> list[tuple[int, int, str]]:
    """Sorts versions as people count: 1.9 before 1.10. Runs of digits are numbers."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def is_device(part: str) -> bool:
    """True for a part of a path that names a device on Windows."""
    return part.split(".", 1)[0].rstrip(" ").casefold() in _DEVICES


class Reference(msgspec.Struct, frozen=True):
    """`[registry/]name[@version]`, taken apart; None where a part was not given."""

    name: str
    registry: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        registry = f"{self.registry}/" if self.registry else ""
        version = f"@{self.version}" if self.version else ""
        return f"{registry}{self.name}{version}"

    def means(self, other: Reference) -> bool:
        """True if `other`, which is complete, is one that this one may stand for."""
        return (
            self.name == other.name
            and self.registry in (None, other.registry)
            and self.version in (None, other.version)
        )

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str) -> Reference:
        """Take a reference apart.

        Raises:
            UsageError: it is not of the form `[registry/]name[@version]`.
        """
        rest, at, version = text.partition("@")
        registry, slash, name = rest.rpartition("/")
        if (
            not is_name(name)
            or (slash and not is_name(registry))
            or (at and not is_version(version))
        ):
            raise UsageError(
                f"{text!r} is not a dataset name",
                hint="names look like 'mnist', 'mnist@1' or 'vision/mnist@1', in lower case",
            )
        return cls(name, registry or None, version or None)


#: The registry of what is retrieved by URL; its names say the hash of the bytes.
RETRIEVED = "urls"

_PLAIN_PART = (
    r"(?!(?i:con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(?:[./]|$))"
    r"[A-Za-z0-9_+=-][A-Za-z0-9_.+=-]{0,254}"
)
_PLAIN_PATH = re.compile(rf"{_PLAIN_PART}(?:/{_PLAIN_PART})*")


def is_plain_path(path: str) -> bool:
    """True for a path that is fine everywhere, told by one match; nearly all are such."""
    return _PLAIN_PATH.fullmatch(path) is not None


def check_path(path: str) -> None:
    """Make sure that `path` can stand in a dataset on every platform.

    Raises:
        UnsafeError: it would lead out of the dataset's folder.
        InvalidFile: it is empty, not in Unicode NFC, or holds a part that some platform refuses.
    """
    if is_plain_path(path):
        return
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path):
        raise UnsafeError(f"path {path!r} is absolute", path=path)
    parts = path.split("/")
    if ".." in re.split(r"[/\\]", path):
        raise UnsafeError(f"path {path!r} leads out of its folder", path=path)
    if reason := _path_fault(path, parts):
        raise InvalidFile(f"path {path!r} {reason}", path=path)


def _path_fault(path: str, parts: list[str]) -> str:
    if "\\" in path:
        return "holds a backslash; parts are separated by '/'"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in path):
        return "holds a control character"
    if not unicodedata.is_normalized("NFC", path):
        return "is not in Unicode form NFC"
    for part in parts:
        if part in ("", "."):
            return "has an empty part"
        if is_device(part):
            return f"has the part {part!r}, a device name on Windows"
        if len(part.encode()) > 255:
            return f"has a part of {len(part.encode())} bytes; file systems take 255"
    return ""


class Occupied:
    """The names that are taken in one folder: two that differ only by case cannot both be stored,
    and a file cannot be a folder as well.
    """

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, path: str) -> str | None:
        """Take the name of a file; the name it collides with, or None."""
        key = _folded(path)
        other = self._files.get(key) or self._folders.get(key)
        self._files.setdefault(key, path)
        return self._add_folders(key.rpartition("/")[0], path) or other

    def add_folder(self, path: str) -> str | None:
        """Take the name of a folder, which others may use too; what it collides with, or None."""
        return self._add_folders(_folded(path), path)

    def _add_folders(self, key: str, path: str) -> str | None:
        while key and key not in self._folders:
            self._folders[key] = path
            if key in self._files:
                return self._files[key]
            key = key.rpartition("/")[0]
        return self._files.get(key)


def _folded(path: str) -> str:
    key = path.casefold()
    return path if key == path else key  # mostly equal: one string in memory instead of two


def collisions(paths: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Pairs of paths that one folder cannot hold: equal but for case, or a file used as a folder.

    Yields (path, the other path) for each path that meets an earlier one.
    """
    occupied = Occupied()
    for path in paths:
        if (other := occupied.add(path)) is not None:
            yield path, other


class Artifact(msgspec.Struct, frozen=True, gc=False):
    """One file of a dataset.

    Attributes:
        path: file name in the dataset, relative, '/' between parts.
        hash: the identity the registry gives; None only for `retrieve(url, None)`.
        size: bytes; None where nobody knows.
        checksums: further hashes, which must match as well.
        urls: absolute sources in order of preference.
        manual: instructions for a person; empty where there are none.
        unpack: recipe of the extraction; empty where the file is used as it is.
        unpack_to: folder in the dataset for the members.
    """

    path: str
    hash: Digest | None
    size: int | None = None
    checksums: tuple[Digest, ...] = ()
    urls: tuple[str, ...] = ()
    manual: str = ""
    unpack: str = ""
    unpack_to: str = ""

    @property
    def recipe(self) -> str:
        """How it is unpacked, as far as entry and name say; empty where it is not."""
        return recipe_for(self.path, self.unpack) if self.unpack else ""

    @property
    def single(self) -> str | None:
        """Where the content of a single compressed file stands; None for everything else."""
        return unpacked_path(self.path, self.unpack, self.unpack_to) if self.unpack else None

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Every hash that the bytes must have."""
        return (self.hash, *self.checksums) if self.hash else self.checksums

    @property
    def identity(self) -> Digest | None:
        """The best hash known: sha256, else another strong one, else what there is."""
        if self.hash and self.hash.algorithm == "sha256":
            return self.hash
        return min(
            self.digests,
            key=lambda digest: (digest.algorithm != "sha256", digest.weak),
            default=None,
        )


class Manifest(msgspec.Struct, frozen=True):
    """A list of artifacts too long for an entry: itself a file to fetch, one artifact a line.

    Attributes:
        base_urls: where the files of lines without URLs are, each ending as the author wrote it.
        base: URL of the registry, for relative URLs of lines.
    """

    file: Artifact
    base_urls: tuple[str, ...] = ()
    base: str = ""


class Dataset(msgspec.Struct, frozen=True):
    """One version of a dataset, as a registry describes it.

    Attributes:
        registry: name under which the user knows the registry.
        content: sha256 in hex over what the version holds; two entries with one value hold the
            same files, whatever their texts say.
        artifacts: the files; empty where `manifest` lists them.
        pins: path and sha256 of files that `content` names by another hash: a file that has only
            the latter is another one.
    """

    registry: str
    name: str
    version: str
    content: str
    artifacts: tuple[Artifact, ...] = ()
    manifest: Manifest | None = None
    summary: str = ""
    license: str = ""
    homepage: str = ""
    citation: str = ""
    yanked: str = ""
    base: str = ""
    pins: tuple[tuple[str, str], ...] = ()

    @property
    def reference(self) -> Reference:
        """The full name: registry, name and version."""
        return Reference(self.name, self.registry, self.version)

    @property
    def mark(self) -> str:
        """What tells this content of this dataset from all others in a cache."""
        return mark_of(self.registry, self.name, self.version, self.content)

    @property
    def size(self) -> int | None:
        """Bytes of all artifacts; None where one size is not known."""
        if self.manifest:
            return None
        sizes = [artifact.size for artifact in self.artifacts]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def first_use(self) -> bool:
        """True where the registry gives no strong hash for some file (trust on first use)."""
        files = (self.manifest.file,) if self.manifest else self.artifacts
        return any(not file.identity or file.identity.weak for file in files)


def mark_of(registry: str, name: str, version: str, content: str) -> str:
    """One content of one dataset: `registry/name@version+` and 8 hex digits of the content."""
    return f"{registry}/{name}@{version}+{content[:8]}"


def content_of(artifacts: Iterable[Artifact], manifest: Manifest | None = None) -> str:
    """The content identity: sha256 over the sorted (path, hash, unpack, unpack_to).

    A manifest stands for its lines by its own hash, so that a look-up need not read it.
    """
    if manifest:
        rows = [["", str(manifest.file.hash), "manifest", ""]]
    else:
        rows = sorted(
            [file.path, str(file.hash or file.urls), file.unpack, file.unpack_to]
            for file in artifacts
        )
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
