"""Registry files of Pooch: a name, a hash and perhaps a URL on each line. In both directions.

They are read by Pooch's own parser, so that what Pooch takes is what we take.
"""

from __future__ import annotations

import shlex
import urllib.parse
from collections.abc import Iterable

from dscache.errors import InvalidFile, NotFound
from dscache.model import Artifact, Dataset
from dscache.registry.tables import ArtifactEntry

# Pooch hands these on as they are; web servers get what `requests` makes of a URL.
_LITERAL = ("doi", "ftp", "sftp")
_POOCH_KNOWS = ("https", "http", *_LITERAL)
_SAFE_IN_URL = "!#$%&'()*+,/:;=?@[]~"


def read(file: str, base_url: str, *, unpack: str = "") -> list[ArtifactEntry]:
    """The files that a Pooch registry file lists, those without a URL at the base URL + name.

    Raises:
        NotFound: there is no such file.
        InvalidFile: it is not a Pooch registry file.
    """
    import pooch

    reader = pooch.create(path=".", base_url="", registry=None)
    try:
        with open(file, encoding="utf-8") as lines:
            reader.load_registry(lines)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {file}", path=file) from error
    except (OSError, ValueError) as error:
        raise InvalidFile(f"{file} is not a Pooch registry file: {error}", file=file) from error
    return [
        ArtifactEntry(
            path=name,
            hash=reader.registry[name],
            urls=_url(reader.urls.get(name), base_url, name),
            unpack=unpack,
        )
        for name in reader.registry_files
    ]


def export(dataset: Dataset, artifacts: Iterable[Artifact] | None = None) -> str:
    """The files of a dataset as a Pooch registry file.

    Args:
        artifacts: the lines of its manifest, if it has one.

    Files that only a person can download have no URL there.
    """
    files = dataset.artifacts if artifacts is None else artifacts
    return f"# {dataset.reference}\n" + "".join(map(_line, files))


def joined(base_url: str, name: str) -> str:
    """The URL of a file below a base URL."""
    slash = "" if base_url.endswith(("/", "=")) else "/"
    return base_url + slash + urllib.parse.quote(name)


def _url(own: str | None, base_url: str, name: str) -> list[str]:
    if own is None:
        return [joined(base_url, name)] if base_url else []
    literal = own.partition(":")[0].lower() in _LITERAL
    return [urllib.parse.quote(own, "/:@" if literal else _SAFE_IN_URL)]


def _line(artifact: Artifact) -> str:
    usable = (url for url in artifact.urls if url.partition(":")[0].lower() in _POOCH_KNOWS)
    url = next(usable, "")
    if url.partition(":")[0].lower() in _LITERAL:
        url = urllib.parse.unquote(url)
    words = (artifact.path, str(artifact.identity), url)
    return " ".join(shlex.quote(word) for word in words if word) + "\n"
