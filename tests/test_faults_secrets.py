"""Tokens of a host while a large file is fetched from it in many requests, with breaks."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.origin import Drip, Drop, Flip, Redirect, RequireAuth, Site, Unsteady, origin

MIB = 1 << 20
SECRET = "t0ken-that-is-nowhere"
BEARER = f"Bearer {SECRET}"
BIG, BAD = content(24 * MIB, 1), content(16 * MIB, 2)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """It answers as 127.0.0.1, which has a token, and as localhost, which has none."""
    monkeypatch.setenv("TOKEN_OF_THE_HOST", SECRET)
    with origin({"/big.bin": BIG, "/bad.bin": BAD, "/free.bin": BIG}) as found:
        found.fault("*", Drip(MIB // 2, 0.01), Unsteady(0.05, seed=3))
        for path in ("/big.bin", "/bad.bin", "/away"):
            found.fault(path, RequireAuth(BEARER))
        yield found


@pytest.fixture
def desk(tmp_path: Path, site: Site) -> Desk:
    auth = {"127.0.0.1": {"token_env": "TOKEN_OF_THE_HOST"}}
    made = Desk(tmp_path, retries=4, stall_timeout=20, auth=auth)
    made.offer("big", artifact("big.bin", BIG, site.url("/big.bin")))
    made.offer("bad", artifact("bad.bin", BAD, site.url("/bad.bin")))
    made.offer("away", artifact("away.bin", BIG, site.url("/away")))
    return made


def assert_nowhere(*places: str) -> None:
    """Neither as it is, nor as headers and URLs encode it."""
    packed = base64.b64encode(SECRET.encode()).decode()
    for place in places:
        assert SECRET not in place
        assert packed.rstrip("=") not in place


def test_every_request_to_the_host_has_its_token(
    desk: Desk, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The ones for a part of the file and the ones after a break too; it is written nowhere."""
    caplog.set_level(logging.DEBUG)
    site.fault("/big.bin", Drop(8 * MIB), times=1)
    assert desk.fetch("big").unwrap().read_bytes() == BIG
    assert len(site.requests) >= 2
    assert {seen.headers.get("authorization") for seen in site.requests} == {BEARER}
    assert_nowhere(desk.text(), caplog.text)


def test_a_redirect_to_another_host_takes_no_token_along(desk: Desk, site: Site) -> None:
    """Whichever request it is: the first one, one for a part, one after a break."""
    site.fault("/away", Redirect(site.url("/free.bin", host="localhost")))
    site.fault("/free.bin", Drop(8 * MIB), times=1)
    assert desk.fetch("away").unwrap().read_bytes() == BIG
    ours = [seen for seen in site.requests if seen.headers["host"].startswith("127.0.0.1")]
    others = [seen for seen in site.requests if seen.headers["host"].startswith("localhost")]
    assert {seen.headers.get("authorization") for seen in ours} == {BEARER}
    assert len(others) >= 2
    assert_nowhere(*(repr(seen.headers) for seen in others))
    assert_nowhere(desk.text())


def test_what_failed_keeps_no_token(
    desk: Desk, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the error, the partial file and its journal, the quarantine or the log."""
    caplog.set_level(logging.DEBUG)
    site.fault("/big.bin", Drop(12 * MIB), times=1)
    site.fault("/big.bin", RequireAuth("Bearer of another"), skip=1)
    site.fault("/bad.bin", Flip())
    for name, code in (("big", 4), ("bad", 5)):
        error = error_of(desk.fetch(name))
        assert error.code == code
        assert_nowhere(f"{error!r} {error} {error.hint} {error.facts} {error.__cause__!r}")
    assert desk.parts
    assert desk.quarantine
    assert_nowhere(desk.text(), caplog.text)


def test_the_command_line_says_no_token(desk: Desk, site: Site) -> None:
    config = desk.root.parent / "config.toml"
    config.write_text('[auth."127.0.0.1"]\ntoken_env = "TOKEN_OF_THE_HOST"\n', "utf-8")
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "DSCACHE_DIR": str(desk.root),
        "DSCACHE_CONFIG": str(config),
        "DSCACHE_REGISTRIES": str(desk.shelf.folder),
    }
    site.fault("/bad.bin", Flip())
    command = [sys.executable, "-m", "dscache", "fetch", "big", "bad", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    big, bad = json.loads(done.stdout)
    assert Path(big["path"]).read_bytes() == BIG
    assert bad["error"]["code"] == 5
    assert_nowhere(done.stdout, done.stderr, desk.text())
