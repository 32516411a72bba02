"""Retrieving: one file by its URL becomes a dataset of the registry `urls`."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse

from dscache.digest import Digest
from dscache.errors import UsageError
from dscache.events import Emit, Notice
from dscache.model import RETRIEVED, Artifact, Dataset, check_path, content_of
from dscache.recipes import check_recipe
from dscache.urls import file_name, recordable, redacted

_SCHEMES = ("https", "http", "ftp", "sftp", "doi", "file")


def dataset_of(
    url: str, known_hash: str | None, *, fname: str | None, unpack: str, emit: Emit
) -> Dataset:
    """What to fetch for a URL.

    Raises:
        UsageError: URL, hash or file name is malformed.
        InvalidFile: there is no such recipe, or none for such a file.
    """
    parts = urllib.parse.urlsplit(url)
    if not parts.scheme and os.path.exists(url):
        url = f"file://{urllib.parse.quote(os.path.abspath(url))}"
        parts = urllib.parse.urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise UsageError(f"{url!r} is no URL that can be fetched ({', '.join(_SCHEMES)})")
    digest = Digest.parse(known_hash) if known_hash else None
    if digest is None:
        emit(Notice(f"{redacted(url)} is fetched without a known hash: nothing proves its bytes"))
    path = fname or file_name(url)
    check_path(path)
    if unpack:
        check_recipe(path, unpack)
    return as_dataset(Artifact(path=path, hash=digest, urls=(url,), unpack=unpack))


def as_dataset(artifact: Artifact) -> Dataset:
    """A dataset of one file, named after the file and its hash; without a hash after its URL.

    What stands for its registry is the URL, as far as that may be written down.
    """
    return Dataset(
        registry=RETRIEVED,
        name=_name(artifact),
        version="1",
        content=content_of([artifact]),
        artifacts=(artifact,),
        base=recordable(artifact.urls[0]) if artifact.urls else "",
    )


def _name(artifact: Artifact) -> str:
    identity = artifact.identity
    unique = identity.hex if identity else hashlib.sha256(artifact.urls[0].encode()).hexdigest()
    stem = re.sub(r"[^a-z0-9._-]+", "-", artifact.path.lower()).strip("-._")[:80]
    return f"{stem or 'file'}-{unique[:8]}"
