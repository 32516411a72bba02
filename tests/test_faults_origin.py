"""Tests of the faults that other tests of faults trust; they meet the origin over plain sockets."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.making import content
from tests.origin import Chunked, Onward, Overrun, Site, Unsteady, origin
from tests.servers import Certificate, certificate, self_signed

MIB = 1 << 20
DATA = content(8 * MIB, 1)


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/a.bin": DATA, "/b.bin": DATA[:1000]}) as found:
        yield found


def fetched(site: Site, path: str) -> bytes | None:
    """The body; None where the connection was reset."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except ConnectionResetError:
        return None
    finally:
        connection.close()


def test_unsteady_is_the_same_for_the_same_seed() -> None:
    sent = []
    for _ in range(2):
        with origin({"/a.bin": DATA}) as site:
            site.fault("*", Unsteady(0.2, seed=5))
            bodies = [fetched(site, "/a.bin") for _ in range(6)]
            assert all(body in (None, DATA) for body in bodies)
            assert None in bodies
            sent.append([seen.sent for seen in site.requests])
    assert sent[0] == sent[1]


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("path", ["/a.bin", "/b.bin"])
def test_unsteady_always_and_never(site: Site, path: str, share: float) -> None:
    site.fault("*", Unsteady(share))
    assert fetched(site, path) == (None if share else site.files[path])
    assert share == 0.0 or site.sent(path) < min(MIB, len(site.files[path]))


def test_overrun_is_sent_on_the_connection(site: Site) -> None:
    site.fault("/b.bin", Overrun(3))
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as connection:
        connection.sendall(b"GET /b.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        raw = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert b"Content-Length: 1000\r\n" in raw
    assert raw.endswith(DATA[:1000] + bytes(3))
    assert fetched(site, "/b.bin") == DATA[:1000]
    site.fault("/b.bin", Chunked())
    assert fetched(site, "/b.bin") == DATA[:1000] + bytes(3)


def test_onward_never_names_a_place_twice(site: Site) -> None:
    site.fault("*", Onward())
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    path, seen = "/a.bin", []
    for _ in range(30):
        seen.append(path)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        path = answer.headers["Location"]
    connection.close()
    assert len(set(seen)) == 30


@pytest.mark.parametrize(
    ("make", "word"),
    [(lambda folder: certificate(folder, days=-1), "expired"), (self_signed, "self-signed")],
)
def test_certificates_are_as_bad_as_they_say(
    tmp_path: Path, make: Callable[[Path], Certificate], word: str
) -> None:
    papers = make(tmp_path)
    context = ssl.create_default_context()
    if word == "expired":
        context.load_verify_locations(papers.authority)
    with (
        origin({}, tls=papers.pair) as site,
        socket.create_connection(("127.0.0.1", site.port), timeout=5) as connection,
    ):
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            context.wrap_socket(connection, server_hostname="localhost")
        assert word in caught.value.verify_message.replace("self signed", "self-signed")
