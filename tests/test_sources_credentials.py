"""Credentials: found for their host, sent to nobody else, and never seen anywhere."""

from __future__ import annotations

import base64
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dscache.errors import DscacheError, InvalidFile, UnsafeError
from dscache.settings import Auth
from dscache.sources.credentials import Credentials
from dscache.sources.http import Http
from dscache.sources.options import Options
from tests.downloads import Desk, answered, error_of
from tests.making import artifact, content
from tests.origin import Drop, Flip, Redirect, Refuse, RequireAuth, Site, origin

SECRET = "s3cr3t-value-of-the-tests"
DATA = content(100_000)


def credentials(hosts: Mapping[str, Auth], **variables: str) -> Credentials:
    return Credentials(hosts, variables.get)


TOKEN = Auth(token_env="TOKEN")


@pytest.mark.parametrize(
    ("key", "url", "is_sent"),
    [
        ("data.example.org", "https://data.example.org/a", True),
        ("data.example.org", "https://DATA.example.org/a", True),
        ("Data.Example.Org", "https://data.example.org/a", True),
        ("data.example.org", "https://data.example.org:8443/a", True),
        ("data.example.org:8443", "https://data.example.org:8443/a", True),
        ("data.example.org:8443", "https://data.example.org/a", False),
        ("data.example.org:8443", "https://data.example.org:9443/a", False),
        ("data.example.org", "https://example.org/a", False),
        ("example.org", "https://data.example.org/a", False),
        ("data.example.org", "https://data.example.org.evil.org/a", False),
        ("data.example.org", "https://data.example.org@evil.org/a", False),
        ("data.example.org", "https://evil.org/?https://data.example.org/", False),
        ("127.0.0.1", "http://127.0.0.1:8080/a", True),
        ("localhost", "http://localhost/a", True),
        ("::1", "http://[::1]:8080/a", True),
        ("data.example.org", "doi:10.5281/zenodo.1/a", False),
    ],
)
def test_which_host_gets_a_token(key: str, url: str, is_sent: bool) -> None:
    found = credentials({key: TOKEN}, TOKEN=SECRET)(url)
    assert found == (f"Bearer {SECRET}" if is_sent else "")


@pytest.mark.parametrize("url", ["http://data.example.org/a", "ftp://data.example.org/a"])
def test_no_token_in_the_clear(url: str) -> None:
    with pytest.raises(UnsafeError) as caught:
        credentials({"data.example.org": TOKEN}, TOKEN=SECRET)(url)
    assert SECRET not in _all_of(caught.value)


def test_a_token_from_a_command() -> None:
    command = f"{sys.executable} -c \"print('{SECRET}')\""
    assert credentials({"a.org": Auth(command=command)})("https://a.org") == f"Bearer {SECRET}"


def test_a_command_runs_once(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'a').write('x'); print('token')"
    asked = credentials({"a.org": Auth(command=f'{sys.executable} -c "{code}"')})
    assert asked("https://a.org/1") == asked("https://a.org/2") == "Bearer token"
    assert ran.read_text() == "x"


def test_user_and_password() -> None:
    auth = Auth(user="mé", password_env="WORD")
    found = credentials({"a.org": auth}, WORD=SECRET)("https://a.org")
    kind, _, value = found.partition(" ")
    assert kind == "Basic"
    assert base64.b64decode(value).decode() == f"mé:{SECRET}"


@pytest.mark.parametrize(
    "auth",
    [
        TOKEN,
        Auth(user="me", password_env="TOKEN"),
        Auth(command="/nonexistent/program"),
        Auth(command=f"{sys.executable} -c pass"),
        Auth(command=f'{sys.executable} -c "import sys; print({SECRET!r}); sys.exit(1)"'),
        Auth(command='no "closing quote'),
    ],
)
def test_what_cannot_be_had_is_said(auth: Auth) -> None:
    with pytest.raises(InvalidFile, match=r"a\.org") as caught:
        credentials({"a.org": auth})("https://a.org")
    assert SECRET not in _all_of(caught.value)


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX-Evil: 1", f"{SECRET}é", f"{SECRET}\x00"])
def test_a_token_cannot_make_headers(value: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        credentials({"a.org": TOKEN}, TOKEN=value)("https://a.org")
    assert SECRET not in _all_of(caught.value)


def test_a_newline_at_the_end_is_nothing() -> None:
    assert credentials({"a.org": TOKEN}, TOKEN=f"{SECRET}\n")("https://a.org") == f"Bearer {SECRET}"


def _all_of(error: DscacheError) -> str:
    cause = error.__cause__
    return f"{error!r} {error} {error.hint} {error.facts} {cause!r}"


# --- On the wire ----------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/a.bin": DATA, "/b.bin": DATA}) as found:
        yield found


def test_a_handle_that_is_used_again_forgets(site: Site) -> None:
    options = Options(credentials=credentials({"127.0.0.1": TOKEN}, TOKEN=SECRET))
    source = Http(options, 1)
    for start, host in enumerate(["127.0.0.1", "localhost", "127.0.0.1", "localhost"]):
        answered(source, site.url("/a.bin", host=host), start % 2, '"tag"')
        answered(source, site.url("/a.bin", host=host))
    source.close()
    for seen in site.requests:
        assert ("authorization" in seen.headers) == (seen.headers["host"][0] == "1")
    assert [bool(seen.range) for seen in site.requests] == [False, False, True, False] * 2


def test_a_redirect_to_another_host_takes_no_token_along(site: Site) -> None:
    site.fault("/a.bin", Redirect(site.url("/b.bin", host="localhost")))
    options = Options(
        headers={"X-Api-Key": SECRET, "Cookie": SECRET},
        credentials=credentials({"127.0.0.1": TOKEN}, TOKEN=SECRET),
    )
    source = Http(options, 1)
    exchange, body = answered(source, site.url("/a.bin"))
    assert body == DATA
    first, second = site.requests
    assert first.headers["authorization"] == f"Bearer {SECRET}"
    assert first.headers["x-api-key"] == SECRET
    assert second.path == "/b.bin"
    assert SECRET not in repr(second.headers)
    assert exchange.failure is None
    source.close()


def test_a_redirect_on_the_same_host_keeps_the_headers(site: Site) -> None:
    site.fault("/a.bin", Redirect("/b.bin"))
    source = Http(Options(headers={"X-Api-Key": SECRET}), 1)
    answered(source, site.url("/a.bin"))
    source.close()
    assert [seen.headers["x-api-key"] for seen in site.requests] == [SECRET, SECRET]


def test_an_authorization_of_the_caller_goes_before_the_configured_one(site: Site) -> None:
    site.fault("/a.bin", Redirect(site.url("/b.bin", host="localhost")))
    options = Options(
        headers={"Authorization": "Basic mine"},
        credentials=credentials({"127.0.0.1": TOKEN, "localhost": TOKEN}, TOKEN=SECRET),
    )
    source = Http(options, 1)
    answered(source, site.url("/a.bin"))
    source.close()
    sent = [seen.headers["authorization"] for seen in site.requests]
    assert sent == ["Basic mine", f"Bearer {SECRET}"]


def test_netrc_serves_a_host_without_credentials(site: Site, home: Path) -> None:
    (home / ".netrc").write_text(f"machine localhost login me password {SECRET}\n")
    source = Http(Options(), 1)
    answered(source, site.url("/a.bin", host="localhost"))
    answered(source, site.url("/a.bin"))
    source.close()
    first, second = site.requests
    wanted = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert first.headers["authorization"] == f"Basic {wanted}"
    assert "authorization" not in second.headers


def test_the_secret_is_nowhere(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in the cache folder, not in errors, events, logs or output, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN", SECRET)
    big = content(3 << 20)
    site.files |= {"/big.bin": big, "/bad.bin": big}
    site.fault("*", RequireAuth(f"Bearer {SECRET}"))
    site.fault("/big.bin", Drop(1 << 20), times=1)
    site.fault("/bad.bin", Flip())
    site.fault("/gone.bin", Refuse(404))
    desk = Desk(tmp_path, auth={"127.0.0.1": {"token_env": "TOKEN"}}, retries=1)
    desk.offer("small", artifact("a.bin", DATA, site.url("/a.bin")))
    desk.offer("big", artifact("big.bin", big, f"{site.url('/big.bin')}?signature={SECRET}"))
    desk.offer("bad", artifact("bad.bin", big, site.url("/bad.bin")))
    desk.offer("gone", artifact("gone.bin", content(10), site.url("/gone.bin")))
    desk.offer("other", artifact("b.bin", content(11), site.url("/b.bin", host="localhost")))
    found = desk.fetch_all("small", "bad", "gone", "other")
    found.append(desk.retrieve(f"{site.url('/big.bin')}?signature={SECRET}", None))
    assert [each.error is None for each in found] == [True, False, False, False, True]
    for each in found:
        if each.error:
            assert SECRET not in _all_of(each.error)
    basic = base64.b64encode(SECRET.encode()).decode()
    seen = desk.text() + "".join(capfd.readouterr()) + caplog.text
    assert SECRET not in seen
    assert basic not in seen
    assert {each.headers.get("authorization") for each in site.requests} == {
        f"Bearer {SECRET}",
        None,
    }


def test_configured_credentials_are_not_sent_in_the_clear(tmp_path: Path) -> None:
    auth = {"data.example.org": {"command": "echo token"}}
    desk = Desk(tmp_path, auth=auth)
    desk.offer("one", artifact("a.bin", DATA, "http://data.example.org/a.bin"))
    error = error_of(desk.fetch("one"))
    assert isinstance(error, UnsafeError)
    assert error.code == 7


def test_a_variable_that_is_not_set_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    desk = Desk(tmp_path, auth={"data.example.org": {"token_env": "NOT_SET_BY_ANYBODY"}})
    desk.offer("one", artifact("a.bin", DATA, "https://data.example.org/a.bin"))
    error = error_of(desk.fetch("one"))
    assert error.code == 8
    assert "NOT_SET_BY_ANYBODY" in str(error)
