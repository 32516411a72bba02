"""How the sources of a call connect, whichever library does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from dscache.urls import host

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Options(msgspec.Struct, frozen=True):
    """How to connect. Times in seconds, rates in bytes per second.

    Attributes:
        stall_timeout: a connection that gives less than `stall_rate` for that long is given up.
        limit_rate: what the whole call may use; 0 for no limit.
        ca_bundle: file or folder of trusted authorities; empty for certifi's.
        headers: what the caller wants to be sent to the hosts that it names itself; names in title
            case.
        credentials: gives the Authorization value for a URL; empty for none.
    """

    connect_timeout: float = 10
    stall_timeout: float = 30
    stall_rate: int = 1024
    limit_rate: int = 0
    ca_bundle: str = ""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    credentials: Callable[[str], str] = lambda _url: ""

    def headers_for(self, url: str, asked: str) -> dict[str, str]:
        """The headers for `url`, to which a request for the URL `asked` has led.

        The caller's headers may hold secrets, so that a redirect to another host loses them. Where
        they are sent, an Authorization among them is the caller's word against the configuration.

        Raises:
            UnsafeError, InvalidFile: see `Credentials`.
        """
        headers = dict(self.headers) if url == asked or host(url) == host(asked) else {}
        if "Authorization" not in headers and (authorization := self.credentials(url)):
            headers["Authorization"] = authorization
        return headers


def default_ca_bundle() -> str:
    """The authorities that certifi trusts."""
    import certifi

    return certifi.where()
