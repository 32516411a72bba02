"""Credentials per host: found when they are needed, handed to nobody else.

Sent over https only, or to this machine itself. The values never enter a log, an error, a record
or a URL.
"""

from __future__ import annotations

import base64
import shlex
import urllib.parse
from collections.abc import Callable, Mapping

from dscache.errors import InvalidFile, UnsafeError
from dscache.settings import Auth
from dscache.urls import host, is_loopback

_COMMAND_TIMEOUT = 60


class Credentials:
    """Answers with the Authorization header for a URL; each command runs once per call."""

    def __init__(self, hosts: Mapping[str, Auth], variable: Callable[[str], str | None]) -> None:
        self._hosts = {name.lower(): auth for name, auth in hosts.items()}
        self._variable = variable
        self._known: dict[str, str] = {}

    def __call__(self, url: str) -> str:
        """The header's value; empty where none is configured for the host.

        Raises:
            UnsafeError: credentials are configured, but the URL is plain http to another machine.
            InvalidFile: the configured variable is not set, the command failed, or what they give
                cannot stand in a header.
        """
        if not self._hosts:
            return ""
        parts = urllib.parse.urlsplit(url)
        for name in (host(url), parts.hostname or ""):
            if name in self._hosts:
                break
        else:
            return ""
        if parts.scheme != "https" and not is_loopback(url):
            raise UnsafeError(
                f"credentials for {name} are not sent over {parts.scheme}",
                hint="use an https URL for this host",
            )
        if name not in self._known:
            self._known[name] = self._read(name, self._hosts[name])
        return self._known[name]

    def _read(self, name: str, auth: Auth) -> str:
        if auth.token_env:
            return _bearer(name, self._value(name, auth.token_env))
        if auth.command:
            return _bearer(name, _output(name, auth.command))
        password = self._value(name, auth.password_env) if auth.password_env else ""
        return f"Basic {base64.b64encode(f'{auth.user}:{password}'.encode()).decode()}"

    def _value(self, name: str, variable: str) -> str:
        value = self._variable(variable)
        if not value:
            raise InvalidFile(
                f'auth."{name}": the environment variable {variable} is not set',
                hint=f"set {variable}, or remove the entry from the configuration",
            )
        return value


def _bearer(name: str, token: str) -> str:
    token = token.strip()
    if not token.isascii() or not token.isprintable():
        raise InvalidFile(
            f'auth."{name}": the token holds characters that no header can have',
            hint="a token is one line of letters, digits and signs",
        )
    return f"Bearer {token}"


def _output(name: str, command: str) -> str:
    import subprocess  # late: most hosts need no command

    try:
        done = subprocess.run(
            shlex.split(command),
            check=False,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise InvalidFile(f'auth."{name}": the command could not be run') from error
    if done.returncode or not done.stdout.strip():
        raise InvalidFile(
            f'auth."{name}": the command gave no token (exit code {done.returncode})',
            hint="run the command by hand; it should print the token and nothing else",
        )
    return done.stdout
