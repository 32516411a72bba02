"""What is never done for the sake of a download: weaker connections, foreign protocols, loops."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dscache.errors import TransferError, UnsafeError
from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.origin import Chunked, Drip, Drop, Endless, Redirect, Refuse, Site, origin
from tests.servers import Certificate, certificate

DATA, BIG = content(100_000, 1), content(3 << 20, 2)
FILES = {"/a.bin": DATA, "/big.bin": BIG}


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def site() -> Iterator[Site]:
    with origin(FILES) as found:
        yield found


@pytest.fixture
def secure(trusted: Certificate) -> Iterator[Site]:
    with origin(FILES, tls=trusted.pair) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path, trusted: Certificate) -> Desk:
    return Desk(tmp_path, ca_bundle=str(trusted.authority))


def offer(desk: Desk, *urls: str) -> None:
    desk.offer("one", artifact("a.bin", DATA, *urls))


# --- Redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(desk: Desk, site: Site, status: int) -> None:
    site.fault("/away", Redirect("/again", status))
    site.fault("/again", Redirect(site.url("/a.bin", host="localhost"), status))
    offer(desk, site.url("/away"))
    assert desk.fetch("one").unwrap().read_bytes() == DATA
    assert [seen.path for seen in site.requests] == ["/away", "/again", "/a.bin"]


def test_a_redirect_to_https(desk: Desk, site: Site, secure: Site) -> None:
    site.fault("/a.bin", Redirect(secure.url("/a.bin")))
    offer(desk, site.url("/a.bin"))
    assert desk.fetch("one").unwrap().read_bytes() == DATA


def test_a_redirect_from_https_to_http_is_refused(desk: Desk, site: Site, secure: Site) -> None:
    secure.fault("/a.bin", Redirect(site.url("/a.bin")))
    offer(desk, secure.url("/a.bin"))
    error = error_of(desk.fetch("one"))
    assert isinstance(error, UnsafeError)
    assert error.code == 7
    assert "from https to http" in str(error)
    assert len(secure.requests) == 1
    assert not site.requests


def test_a_redirect_from_https_to_http_on_the_way_is_refused(
    desk: Desk, site: Site, secure: Site
) -> None:
    site.fault("/start", Redirect(secure.url("/on")))
    secure.fault("/on", Redirect(site.url("/a.bin")))
    offer(desk, site.url("/start"))
    assert error_of(desk.fetch("one")).code == 7
    assert [seen.path for seen in site.requests] == ["/start"]


def test_after_a_refused_redirect_the_next_mirror_is_asked(
    desk: Desk, site: Site, secure: Site
) -> None:
    secure.fault("/away", Redirect(site.url("/a.bin")))
    offer(desk, secure.url("/away"), secure.url("/a.bin"))
    assert desk.fetch("one").unwrap().read_bytes() == DATA


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://h/a"])
def test_a_redirect_to_another_protocol_is_refused(desk: Desk, site: Site, target: str) -> None:
    site.fault("/a.bin", Redirect(target))
    offer(desk, site.url("/a.bin"))
    assert error_of(desk.fetch("one")).code == 7


def test_a_redirect_loop_ends(desk: Desk, site: Site) -> None:
    site.fault("/a.bin", Redirect("/a.bin"))
    offer(desk, site.url("/a.bin"), site.url("/b.bin"))
    error = error_of(desk.fetch("one"))
    assert isinstance(error, TransferError)
    assert "redirected more than 20 times" in str(error)
    assert sum(seen.path == "/a.bin" for seen in site.requests) == 21


def test_a_redirect_is_followed_anew_for_the_rest(desk: Desk, site: Site) -> None:
    desk.offer("big", artifact("big.bin", BIG, site.url("/away")))
    site.fault("/away", Redirect("/big.bin"))
    site.fault("/big.bin", Drop(1 << 20), times=1)
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert site.requests[-1].range == f"bytes={1 << 20}-"
    assert site.sent("/big.bin") == len(BIG)


def test_the_page_of_a_redirect_is_nobodys_file(desk: Desk, site: Site) -> None:
    """Neither awaited to its end, nor taken for bytes."""
    site.fault("/slow", Redirect("/a.bin"), Drip(10, 5.0))
    site.fault("/endless", Redirect("/slow"), Endless())
    site.fault("/chunked", Redirect("/endless"), Chunked())
    offer(desk, site.url("/chunked"))
    assert desk.fetch("one").unwrap().read_bytes() == DATA


def test_the_page_of_an_error_is_not_awaited(desk: Desk, site: Site) -> None:
    site.fault("/gone", Refuse(404), Endless())
    offer(desk, site.url("/gone"), site.url("/a.bin"))
    assert desk.fetch("one").unwrap().read_bytes() == DATA


# --- Certificates ---------------------------------------------------------------------------------


def test_a_trusted_certificate(desk: Desk, secure: Site) -> None:
    offer(desk, secure.url("/a.bin"))
    assert desk.fetch("one").unwrap().read_bytes() == DATA


def test_an_authority_in_a_folder(tmp_path: Path, trusted: Certificate, secure: Site) -> None:
    """As OpenSSL wants it: named by the hash of the subject."""
    command = ("openssl", "x509", "-hash", "-noout", "-in", str(trusted.authority))
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / f"{name}.0").write_bytes(trusted.authority.read_bytes())
    desk = Desk(tmp_path, ca_bundle=str(folder))
    offer(desk, secure.url("/a.bin"))
    assert desk.fetch("one").unwrap().read_bytes() == DATA


def test_an_unknown_authority(tmp_path: Path, secure: Site) -> None:
    desk = Desk(tmp_path)
    offer(desk, secure.url("/a.bin"), secure.url("/big.bin"))
    error = error_of(desk.fetch("one"))
    assert isinstance(error, TransferError)
    assert "certificate" in str(error)
    assert "ca_bundle" in str(error)
    assert not secure.requests
    assert not desk.retries


def test_a_certificate_of_another_name(tmp_path: Path, trusted: Certificate, secure: Site) -> None:
    desk = Desk(tmp_path, ca_bundle=str(trusted.authority))
    offer(desk, secure.url("/a.bin", host="other.localhost"))
    error = error_of(desk.fetch("one"))
    assert error.code == 4
    assert "other.localhost" in str(error)
    assert "certificate" in str(error)
    assert not desk.retries


def test_a_bundle_that_is_not_there(tmp_path: Path, secure: Site) -> None:
    desk = Desk(tmp_path, ca_bundle=str(tmp_path / "missing.pem"))
    offer(desk, secure.url("/a.bin"))
    error = error_of(desk.fetch("one"))
    assert error.code == 4
    assert "missing.pem" in str(error)


def test_https_where_http_is_spoken(desk: Desk, site: Site) -> None:
    """No fall-back to plain http, whatever happens."""
    offer(desk, site.url("/a.bin").replace("http:", "https:"))
    assert error_of(desk.fetch("one")).code == 4
    assert not site.requests
