"""Credentials per host: found when they are needed, handed to nobody else.

Sent over https only, or to this machine itself. The values never enter a log, an error, a record
or a URL.
"""

from __future__ import annotations

import base64
import shlex
import subprocess
import urllib.parse
from collections.abc import Callable, Mapping

from dscache.errors import InvalidFile, UnsafeError
from dscache.settings import Auth
from dscache.urls import is_loopback

_COMMAND_TIMEOUT = 60


class Credentials:
    """Answers with the Authorization header for a URL; each command runs once per call."""

    def __init__(self, hosts: Mapping[str, Auth], variable: Callable[[str], str | None]) -> None:
        self._hosts = hosts
        self._variable = variable
        self._known: dict[str, str] = {}

    def __call__(self, url: str) -> str:
        """The header's value; empty where none is configured for the host.

        Raises:
            UnsafeError: credentials are configured, but the URL is plain http to another machine.
            InvalidFile: the configured variable is not set, or the command failed.
        """
        if not self._hosts:
            return ""
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        for name in (host, parts.hostname or ""):
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

    def _read(self, host: str, auth: Auth) -> str:
        if auth.token_env:
            return f"Bearer {self._value(host, auth.token_env)}"
        if auth.command:
            return f"Bearer {_output(host, auth.command)}"
        password = self._value(host, auth.password_env) if auth.password_env else ""
        return f"Basic {base64.b64encode(f'{auth.user}:{password}'.encode()).decode()}"

    def _value(self, host: str, variable: str) -> str:
        value = self._variable(variable)
        if not value:
            raise InvalidFile(
                f'auth."{host}": the environment variable {variable} is not set',
                hint=f"set {variable}, or remove the entry from the configuration",
            )
        return value


def _output(host: str, command: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, timeout=_COMMAND_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise InvalidFile(f'auth."{host}": the command could not be run') from error
    if done.returncode or not done.stdout.strip():
        raise InvalidFile(
            f'auth."{host}": the command gave no token (exit code {done.returncode})',
            hint="run the command by hand; it should print the token and nothing else",
        )
    return done.stdout.strip()
