"""What can be told from a URL alone: its host, and how to show it to people."""

from __future__ import annotations

import ipaddress
import urllib.parse


def host(url: str) -> str:
    """Host and port, without credentials."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2].lower()


def redacted(url: str) -> str:
    """The URL without what may be secret: user, password and query.

    Signed links carry their signature in the query, so none of it is shown, logged or recorded.
    """
    parts = urllib.parse.urlsplit(url)
    query = "…" if parts.query else ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment="").geturl()


def is_loopback(url: str) -> bool:
    """True if the URL's host is this machine, so that nobody can listen on the way."""
    name = urllib.parse.urlsplit(url).hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
