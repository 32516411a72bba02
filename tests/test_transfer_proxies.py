"""Proxies from the environment: tunnels for https, plain forwarding for http."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

import pytest

from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.origin import Drop, Redirect, origin
from tests.servers import certificate

BIG = content(3 << 20, 2)


class _Proxy(ThreadingTCPServer):
    """Tunnels what it is asked to, and passes other requests on; logs what it was asked."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, refusal: str) -> None:
        super().__init__(("127.0.0.1", 0), _Client)
        self.refusal = refusal
        self.asked: list[str] = []
        self.headers: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Client(StreamRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        line = self.rfile.readline().decode()
        headers = list(iter(self.rfile.readline, b"\r\n"))
        self.server.asked.append(line.strip())
        self.server.headers += headers
        method, target, _ = line.split()
        if self.server.refusal:
            self.wfile.write(f"HTTP/1.1 {self.server.refusal}\r\n\r\n".encode())
        elif method == "CONNECT":
            host, _, port = target.rpartition(":")
            # Headers that would ruin the download if they were taken for the file's.
            self.wfile.write(
                b"HTTP/1.1 200 Connection established\r\nContent-Length: 7\r\n"
                b'ETag: "proxy"\r\nContent-Encoding: gzip\r\nLocation: /elsewhere\r\n\r\n'
            )
            self._join(socket.create_connection((host, int(port))))
        else:
            self._forward(target, headers)

    def _forward(self, target: str, headers: list[bytes]) -> None:
        parts = urlsplit(target)
        path = parts._replace(scheme="", netloc="").geturl()
        upstream = socket.create_connection((parts.hostname, parts.port or 80))
        kept = [each for each in headers if not each.lower().startswith(b"proxy-")]
        request = f"GET {path} HTTP/1.1\r\n".encode() + b"".join(kept)
        upstream.sendall(request + b"Connection: close\r\n\r\n")
        self._join(upstream)

    def _join(self, upstream: socket.socket) -> None:
        back = threading.Thread(target=_copy, args=(upstream, self.connection))
        back.start()
        _copy(self.connection, upstream)
        back.join()
        upstream.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(refusal: str = "") -> Iterator[_Proxy]:
    """A running proxy; `refusal` is the status line's end with which it turns everybody away."""
    server = _Proxy(refusal)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_https_goes_through_a_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    trusted = certificate(tmp_path)
    with origin({"/big.bin": BIG}, tls=trusted.pair) as site, proxy() as between:
        monkeypatch.setenv(variable, between.url)
        site.fault("/away", Redirect("/big.bin"))
        site.fault("/big.bin", Drop(1 << 20), times=1)
        desk = Desk(tmp_path, ca_bundle=str(trusted.authority))
        desk.offer("big", artifact("big.bin", BIG, site.url("/away")))
        assert desk.fetch("big").unwrap().read_bytes() == BIG
        assert set(between.asked) == {f"CONNECT 127.0.0.1:{site.port} HTTP/1.1"}
        assert site.sent("/big.bin") == len(BIG)
        assert "proxy" not in site.requests[-1].headers["if-range"]


def test_http_goes_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with origin({"/big.bin": BIG}) as site, proxy() as between:
        monkeypatch.setenv("http_proxy", between.url)
        desk = Desk(tmp_path)
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        assert desk.fetch("big").unwrap().read_bytes() == BIG
        assert between.asked == [f"GET {site.url('/big.bin')} HTTP/1.1"]


def test_no_proxy_for_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with origin({"/big.bin": BIG}) as site, proxy() as between:
        monkeypatch.setenv("http_proxy", between.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        desk = Desk(tmp_path)
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        assert desk.fetch("big").unwrap().read_bytes() == BIG
        assert not between.asked


def test_a_proxy_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy("403 Forbidden") as between:
        monkeypatch.setenv("https_proxy", between.url)
        desk = Desk(tmp_path, retries=1)
        desk.offer("big", artifact("big.bin", BIG, "https://data.example.org/big.bin"))
        error = error_of(desk.fetch("big"))
        assert error.code == 4
        assert "403" in str(error)


def test_the_token_of_a_host_is_not_for_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = certificate(tmp_path)
    monkeypatch.setenv("TOKEN", "secret-of-the-host")
    with origin({"/big.bin": BIG}, tls=trusted.pair) as site, proxy() as between:
        monkeypatch.setenv("https_proxy", between.url)
        desk = Desk(
            tmp_path, ca_bundle=str(trusted.authority), auth={"127.0.0.1": {"token_env": "TOKEN"}}
        )
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        assert desk.fetch("big").error is None
        assert site.requests[0].headers["authorization"] == "Bearer secret-of-the-host"
        assert b"secret" not in b"".join(between.headers)
