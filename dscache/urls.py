"""What can be told from a URL alone: its host, its file's name, how to show it to people."""

from __future__ import annotations

import urllib.parse
from functools import lru_cache


def host(url: str) -> str:
    """Host and port, without credentials; empty for a URL that has none."""
    return _host_of(site(url))


def site(url: str) -> str:
    """The URL up to its path: what the files of one place have in common, as it is written."""
    end = url.find("/", url.find("://") + 3)
    return url if end < 0 else url[:end]


@lru_cache(maxsize=256)
def _host_of(place: str) -> str:
    name = place.partition("://")[2]
    for end in "/?#":
        name = name.partition(end)[0]
    return name.rpartition("@")[2].lower()


def file_name(url: str) -> str:
    """The last part of the URL's path, as people write it."""
    path = urllib.parse.unquote(urllib.parse.urlsplit(url).path)
    return path.rstrip("/").rpartition("/")[2] or "download"


def redacted(url: str) -> str:
    """The URL without what may be secret: user, password and query.

    Signed links carry their signature in the query, so none of it is shown, logged or recorded.
    """
    if "?" not in url and "@" not in url and "#" not in url:
        return url
    parts = urllib.parse.urlsplit(url)
    query = "…" if parts.query else ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment="").geturl()


def recordable(url: str) -> str:
    """The URL without user and password, to be written down; empty if it has a query, which may
    be a signature, and without which it would be another.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.query:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def is_loopback(url: str) -> bool:
    """True if the URL's host is this machine, so that nobody can listen on the way."""
    return _is_loopback(host(url))


@lru_cache(maxsize=256)
def _is_loopback(netloc: str) -> bool:
    import ipaddress  # late: a hit asks for no host

    name = urllib.parse.urlsplit(f"//{netloc}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
