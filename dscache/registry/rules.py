"""The rules of registry files: which values make sense, alone and together.

Pure decisions over the types of `tables`. `problems` gives all that is wrong at once; a look-up
stops at the first, `registry check` shows them all. What is merely unwise is for `check` to say.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Generator, Iterable, Iterator

import msgspec

from dscache.digest import Digest
from dscache.errors import DscacheError, InvalidFile, UnsafeError, UsageError
from dscache.model import (
    Occupied,
    check_path,
    is_name,
    is_plain_path,
    is_version,
)
from dscache.recipes import check_recipe, unpacked_path
from dscache.registry.tables import Alias, ArtifactEntry, Entry, ManifestEntry
from dscache.urls import is_loopback, redacted

SCHEMES = frozenset({"https", "http", "ftp", "sftp", "doi", "file"})

_WITH_HOST = frozenset({"https", "http", "ftp", "sftp"})
# Names of query parameters that carry a signature or a key: of S3, Google, Azure, CloudFront,
# GitLab and the like.
_SECRETS = frozenset(
    {
        "x-amz-signature",
        "x-amz-credential",
        "x-amz-security-token",
        "awsaccesskeyid",
        "x-goog-signature",
        "x-goog-credential",
        "googleaccessid",
        "signature",
        "sig",
        "key-pair-id",
        "token",
        "access_token",
        "private_token",
        "api_key",
        "apikey",
        "password",
    }
)
# What nearly all files have, told by one match: an entry may list thousands of them.
_PLAIN_URL = re.compile(
    r"https?://[A-Za-z0-9.-]+(?::[1-5]?\d{1,4})?/[A-Za-z0-9._~%+,=:/-]*", re.ASCII
)
_PLAIN_HASH = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Surrogates come from the words of a command line that are no text.
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Problem(msgspec.Struct, frozen=True):
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


def problems(entry: Entry | Alias, *, local: bool) -> Iterator[Problem]:
    """Every broken rule of an entry. `local`: the registry is a folder of this machine."""
    if isinstance(entry, Alias):
        if not is_name(entry.see):
            yield Problem("see", InvalidFile(f"{entry.see!r} is not the name of a dataset"))
        return
    if not is_version(entry.version):
        yield Problem("version", InvalidFile(f"{entry.version!r} is not a version"))
    for key in ("summary", "license", "homepage", "citation", "yanked"):
        yield from text_problem(getattr(entry, key), key)
    for number, version in enumerate(entry.versions):
        if not is_version(version):
            yield Problem(f"versions[{number}]", InvalidFile(f"{version!r} is not a version"))
    if bool(entry.artifacts) == bool(entry.manifest):
        yield Problem("artifacts", InvalidFile("either [[artifacts]] or [manifest] is needed"))
    for number, each in enumerate(entry.artifacts):
        if not _is_plain(each):
            yield from _artifact_problems(each, f"artifacts[{number}]", local)
    if entry.manifest:
        yield from _manifest_problems(entry.manifest, local)
    for number, path, other in _collisions(entry.artifacts):
        error = InvalidFile(f"{path!r} and {other!r} cannot both be stored")
        yield Problem(f"artifacts[{number}]", error)


def text_problem(text: str, key: str) -> Iterator[Problem]:
    """Texts are shown on terminals, which take some control characters for commands."""
    if _CONTROL_IN_TEXT.search(text):
        yield Problem(key, InvalidFile("the text holds a control character"))


def _collisions(artifacts: Iterable[ArtifactEntry]) -> Iterator[tuple[int, str, str]]:
    """Number, path and other path of each artifact that cannot stand beside an earlier one.

    Members of archives are known only after unpacking; here count the archives themselves, which
    `files=` may ask for, the folders that they are unpacked to, and single compressed files.
    """
    occupied = Occupied()
    for number, each in enumerate(artifacts):
        if other := occupied.add(each.path):
            yield number, each.path, other
    for number, each in enumerate(artifacts):
        if not each.unpack:
            continue
        path = unpacked_path(each.path, each.unpack, each.unpack_to)
        if path is None:
            path = each.unpack_to
            other = occupied.add_folder(path)
        else:
            other = occupied.add(path) if path != each.path else None
        if other:
            yield number, path, other


def _is_plain(each: ArtifactEntry) -> bool:
    """True for an artifact of which a glance tells that it breaks no rule."""
    return (
        _PLAIN_HASH.fullmatch(each.hash) is not None
        and is_plain_path(each.path)
        and bool(each.urls)
        and all(map(_PLAIN_URL.fullmatch, each.urls))
        and not (each.checksums or each.manual or each.note or each.unpack or each.unpack_to)
    )


def _artifact_problems(each: ArtifactEntry, key: str, local: bool) -> Iterator[Problem]:
    yield from _path_problem(each.path, f"{key}.path")
    yield from _unpack_problem(each, f"{key}.unpack")
    if each.unpack_to:
        yield from _path_problem(each.unpack_to, f"{key}.unpack_to")
    if not (each.urls or each.blob or each.manual):
        yield Problem(key, InvalidFile("no source: urls, blob or manual is needed"))
    for name in ("manual", "note"):
        yield from text_problem(getattr(each, name), f"{key}.{name}")
    yield from _source_problems(each, key, local)


def _unpack_problem(each: ArtifactEntry, key: str) -> Iterator[Problem]:
    if each.unpack:
        try:
            check_recipe(each.path, each.unpack)
        except InvalidFile as error:
            yield Problem(key, error)


def _manifest_problems(manifest: ManifestEntry, local: bool) -> Iterator[Problem]:
    if manifest.path:
        yield from _path_problem(manifest.path, "manifest.path")
    if not (manifest.urls or manifest.blob):
        yield Problem("manifest", InvalidFile("no source: urls or blob is needed"))
    yield from _source_problems(manifest, "manifest", local)
    # Whether http is good enough here depends on the hash of each line.
    yield from _url_problems(manifest.base_urls, "manifest.base_urls", local, False)


def _source_problems(
    each: ArtifactEntry | ManifestEntry, key: str, local: bool
) -> Iterator[Problem]:
    digests = yield from _hash_problems([each.hash, *each.checksums], key)
    if each.blob and not any(digest.algorithm == "sha256" for digest in digests):
        yield Problem(f"{key}.blob", InvalidFile("a blob of the registry needs a sha256"))
    only_weak = bool(digests) and all(digest.weak for digest in digests)
    yield from _url_problems(each.urls, f"{key}.urls", local, only_weak)


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


def _url_problems(urls: list[str], key: str, local: bool, only_weak: bool) -> Iterator[Problem]:
    for number, url in enumerate(urls):
        if error := url_error(url, local=local, only_weak=only_weak):
            yield Problem(f"{key}[{number}]", error)


def url_error(url: str, *, local: bool, only_weak: bool) -> DscacheError | None:
    """What is wrong with a URL of a registry, or None. Shows no credentials.

    `local`: the registry is a folder of this machine. `only_weak`: nothing but md5, sha1 or an xxh
    tells the bytes from others.
    """
    if _PLAIN_URL.fullmatch(url) and not (only_weak and url.startswith("http:")):
        return None
    if not url or _CONTROL.search(url):
        return InvalidFile("the URL is empty or holds control characters")
    if is_local_path(url):
        return None if local else _local_file(url)
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # its text would show the URL
        return InvalidFile("not a URL")
    if "@" in parts.netloc:
        return InvalidFile(f"the URL for {host} holds credentials")
    query = {name.lower() for name, _ in urllib.parse.parse_qsl(parts.query, True)}
    if not query.isdisjoint(_SECRETS):
        return InvalidFile(f"the URL for {host or 'a relative path'} is signed or holds a key")
    if error := _scheme_error(url, parts, local, only_weak):
        return error
    if re.search(r"\s", url) or "\\" in url:
        return InvalidFile(
            f"{redacted(url)!r} holds white space or a backslash", hint="a space is written %20"
        )
    return None


def _scheme_error(
    url: str, parts: urllib.parse.SplitResult, local: bool, only_weak: bool
) -> DscacheError | None:
    scheme, shown = parts.scheme.lower(), redacted(url)
    if not scheme:
        return _relative_error(shown, parts)
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        return InvalidFile(f"{shown!r}: unknown protocol; known are {known}")
    if scheme == "file":
        if not local:
            return _local_file(shown)
        if parts.netloc.lower() not in ("", "localhost") or not parts.path.startswith("/"):
            return InvalidFile(f"{shown!r} is no file URL: file:///path is")
    elif scheme in _WITH_HOST and not parts.hostname:
        return InvalidFile(f"{shown!r} names no host")
    if scheme == "http" and only_weak and not is_loopback(url):
        return InvalidFile(
            f"{shown!r}: http needs a stronger hash than md5 or sha1",
            hint="use https, or add a sha256",
        )
    return None


def _local_file(shown: str) -> UnsafeError:
    return UnsafeError(f"{shown!r} names a local file in a remote registry")


def _relative_error(shown: str, parts: urllib.parse.SplitResult) -> DscacheError | None:
    names = urllib.parse.unquote(parts.path).replace("\\", "/").split("/")
    if parts.netloc or ".." in names:
        return UnsafeError(f"{shown!r} leads out of the registry")
    return None


def is_local_path(url: str) -> bool:
    """True for an absolute path of this machine, as opposed to a URL."""
    return (url.startswith("/") and not url.startswith("//")) or bool(_DRIVE.match(url))
