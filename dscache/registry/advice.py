"""What is unwise in an entry although it breaks no rule: the warnings of `registry check`. Pure."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator

from dscache.model import Artifact
from dscache.registry.entries import digests_of
from dscache.registry.rules import is_local_path
from dscache.registry.tables import ArtifactEntry, Entry, ManifestEntry
from dscache.urls import is_loopback, redacted

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*]|[. ](?:/|$)')


def on_entry(entry: Entry) -> Iterator[tuple[str, str]]:
    """What is unwise in an entry that breaks no rule: key and message."""
    for key in ("license", "homepage"):
        if not getattr(entry, key):
            yield key, "missing"
    for number, each in enumerate(entry.artifacts):
        yield from _on_artifact(each, f"artifacts[{number}]")
        for key in ("path", "unpack_to"):
            if _NOT_ON_WINDOWS.search(getattr(each, key)):
                yield f"artifacts[{number}].{key}", "cannot be stored on Windows"
    if entry.manifest:
        yield from _on_artifact(entry.manifest, "manifest")
        yield from _on_urls(entry.manifest.base_urls, "manifest.base_urls")
        for number, url in enumerate(entry.manifest.base_urls):
            if not url.endswith(("/", "=")):
                yield (
                    f"manifest.base_urls[{number}]",
                    "paths are appended as they are: no / ends it",
                )


def _on_artifact(each: ArtifactEntry | ManifestEntry, key: str) -> Iterator[tuple[str, str]]:
    if each.size is None:
        yield f"{key}.size", "missing: free space and progress cannot be told"
    if all(digest.weak for digest in digests_of(each)):
        yield f"{key}.hash", "weak: the bytes are trusted on first use; add a sha256"
    yield from _on_urls(each.urls, f"{key}.urls")


def _on_urls(urls: Iterable[str], key: str) -> Iterator[tuple[str, str]]:
    for number, url in enumerate(urls):
        if message := _on_url(url):
            yield f"{key}[{number}]", message


def _on_url(url: str) -> str:
    scheme = urllib.parse.urlsplit(url).scheme.lower()
    if is_local_path(url) or scheme == "file":
        return "names a file of this machine: refused once the registry is published"
    if scheme == "http" and not is_loopback(url):
        return f"{redacted(url)} is not encrypted: use https if the server has it"
    return ""


def on_lines(artifacts: Iterable[Artifact]) -> Iterator[str]:
    """What is unwise in the lines of a manifest, counted, since there may be very many."""
    counts = {"no size": 0, "only a weak hash": 0, "http": 0}
    for each in artifacts:
        counts["no size"] += each.size is None
        counts["only a weak hash"] += bool(each.hash and each.hash.weak)
        counts["http"] += any(url.startswith("http:") and _on_url(url) for url in each.urls)
    yield from (f"{count} lines with {what}" for what, count in counts.items() if count)
