"""Proxies that want a password, and hosts that are asked without a proxy."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.origin import origin
from tests.servers import certificate
from tests.test_transfer_proxies import proxy

BIG = content(3 << 20, 2)
SECRET = "hunter2-of-the-proxy"
WANTS_PASSWORD = '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="lab"'


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("user", ["", f"me:{SECRET}@"], ids=["no password", "wrong password"])
def test_a_proxy_that_wants_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, user: str
) -> None:
    """It is the proxy that refuses, not the server; its password is told to nobody else."""
    with proxy(WANTS_PASSWORD) as between:
        monkeypatch.setenv(f"{scheme}_proxy", between.url.replace("//", f"//{user}"))
        desk = Desk(tmp_path, retries=1)
        url = f"{scheme}://data.example.org/big.bin"
        desk.offer("big", artifact("big.bin", BIG, url))
        error = error_of(desk.fetch("big"))
    assert error.code == 4
    assert url in str(error)
    assert "407" in str(error)
    assert "proxy" in str(error).lower()
    basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
    sent = b"".join(between.headers).decode()
    assert (basic in sent) == bool(user)
    for place in (desk.text(), f"{error} {error.hint} {error.facts}"):
        assert SECRET not in place
        assert basic not in place


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("value", ["127.0.0.1", "example.org,127.0.0.1", "*"])
def test_hosts_that_are_asked_without_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str, value: str
) -> None:
    papers = certificate(tmp_path)
    tls = papers.pair if scheme == "https" else None
    with origin({"/big.bin": BIG}, tls=tls) as site, proxy() as between:
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv(f"{scheme}_proxy", between.url)
        monkeypatch.setenv(variable, value)
        desk = Desk(tmp_path, ca_bundle=str(papers.authority))
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        assert desk.fetch("big").unwrap().read_bytes() == BIG
        assert not between.asked
        assert len(site.requests) == 1


def test_a_proxy_that_nobody_listens_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No way around it: a proxy may be there for a reason."""
    with origin({"/big.bin": BIG}) as site:
        with proxy() as between:
            gone = between.url
        monkeypatch.setenv("http_proxy", gone.replace("//", f"//me:{SECRET}@"))
        desk = Desk(tmp_path, retries=1)
        desk.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
        error = error_of(desk.fetch("big"))
        assert error.code == 4
        assert not site.requests
    assert gone.rpartition(":")[2] in str(error)
    assert SECRET not in f"{error} {error.hint} {error.facts} {desk.text()}"
