"""Proxies: what libcurl reads in the environment, for those who want to know which one it takes.

The variables and their precedence are those of curl's manual, "Environment": `http_proxy` counts in
lower case only, since CGI programs get HTTP_PROXY from whoever asks them.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.parse

_VARIABLES = {
    "http": ("http_proxy", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}


def proxy_for(url: str) -> tuple[str, str]:
    """The proxy that a request for `url` goes through, and the variable that says so.

    Without a proxy there is a variable only where it takes the host out.
    """
    parts = urllib.parse.urlsplit(url)
    for exception in ("no_proxy", "NO_PROXY"):
        if _names(os.environ.get(exception, ""), parts.hostname or ""):
            return "", exception
    for variable in _VARIABLES.get(parts.scheme, ()):
        if proxy := os.environ.get(variable):
            return proxy, variable
    return "", ""


def _names(exceptions: str, host: str) -> bool:
    """Whether a list of names, domains, addresses and networks takes a host out."""
    for each in exceptions.replace(",", " ").split():
        name = each.lstrip(".").lower()
        if each == "*" or host == name or host.endswith(f".{name}") or _is_in(host, name):
            return True
    return False


def _is_in(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
