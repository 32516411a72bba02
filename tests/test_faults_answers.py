"""Answers without end, answers that lie about their end, ways without end, and false papers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.children import running
from tests.downloads import Desk, error_of
from tests.making import artifact, content
from tests.origin import (
    Asked,
    Chunked,
    Endless,
    EndlessHeaders,
    Entity,
    Fault,
    HangUp,
    NoValidators,
    Onward,
    Overrun,
    Redirect,
    Reply,
    Site,
    origin,
)
from tests.servers import Certificate, certificate, nginx, self_signed

MIB = 1 << 20
SMALL, BIG = content(100_000, 1), content(24 * MIB, 2)
FILES = {"/small.bin": SMALL, "/big.bin": BIG, "/two/small.bin": SMALL, "/two/big.bin": BIG}
NAMES = pytest.mark.parametrize("name", ["small", "big"])


@pytest.fixture
def site() -> Iterator[Site]:
    with origin(FILES) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, retries=1, stall_timeout=20)


def offer(desk: Desk, site: Site, name: str, *folders: str, **keys: Any) -> bytes:
    """An entry of one file with a mirror in each of the folders."""
    data = FILES[f"/{name}.bin"]
    urls = [site.url(f"{folder}/{name}.bin") for folder in folders or ("",)]
    desk.offer(name, artifact(f"{name}.bin", data, *urls, **keys))
    return data


# --- Ends -----------------------------------------------------------------------------------------


@NAMES
@pytest.mark.parametrize("by", [1, 5 * MIB])
def test_bytes_behind_the_announced_end_belong_to_nobody(
    desk: Desk, site: Site, name: str, by: int
) -> None:
    """Neither to the file, nor to what is fetched next over the same connection."""
    data = offer(desk, site, name, size=None)
    site.files["/next.bin"] = content(1000, 3)
    desk.offer("next", artifact("next.bin", site.files["/next.bin"], site.url("/next.bin")))
    site.fault(f"/{name}.bin", Overrun(by))
    found, after = desk.fetch_all(name, "next")
    assert found.unwrap().read_bytes() == data
    assert after.unwrap().read_bytes() == site.files["/next.bin"]
    assert found.bytes_downloaded <= len(data)


@NAMES
def test_a_body_without_length_or_end_is_stopped_at_the_known_size(
    desk: Desk, site: Site, name: str
) -> None:
    data = offer(desk, site, name, "", "/two")
    site.fault(f"/{name}.bin", Endless(), Chunked())
    assert desk.fetch(name).unwrap().read_bytes() == data
    assert site.sent(f"/{name}.bin") < len(data) + 32 * MIB
    assert "more than" in desk.notices[0]
    assert not desk.parts


@pytest.mark.parametrize("known_hash", [True, False], ids=["hash", "no hash"])
def test_a_body_without_length_or_end_is_stopped_at_the_limit(
    tmp_path: Path, site: Site, known_hash: bool
) -> None:
    desk = Desk(tmp_path, max_unknown_size="8MiB")
    site.fault("*", Endless(), Chunked(), NoValidators())
    if known_hash:
        offer(desk, site, "big", size=None)
        error = error_of(desk.fetch("big"))
    else:
        error = error_of(desk.retrieve(site.url("/big.bin"), None))
    assert error.code == 5
    assert "more than 8.39 MB" in str(error)
    assert site.sent("/big.bin") < 40 * MIB
    assert not desk.parts
    assert sum(map(len, desk.quarantine)) <= MIB


MEASURED = """
import json, re, sys
from dscache.cache import Cache
(found,) = Cache().fetch_all([sys.argv[1]], progress=lambda event: None)
peak = int(re.search("VmHWM:[^0-9]*([0-9]+) kB", open("/proc/self/status").read())[1]) // 1024
print(json.dumps({"code": found.error.code, "error": str(found.error), "peak": peak}))
"""


def measured(desk: Desk, name: str) -> dict[str, Any]:
    """The error of a fetch in a process of its own, and its peak memory in MiB."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("peak memory is not told here")
    environment = {
        "DSCACHE_REGISTRIES": str(desk.shelf.folder),
        "DSCACHE_DIR": str(desk.root),
        "DSCACHE_CONFIG": str(desk.root.parent / "config.toml"),
    }
    (desk.root.parent / "config.toml").write_text("retries = 1\n", "utf-8")
    with running(MEASURED, name, environment=environment) as child:
        output, errors = child.communicate(timeout=60)
    assert output, errors
    told: dict[str, Any] = json.loads(output)
    return told


class EndlessLine(Fault):
    """One header that goes on for ever, as far as anybody reads: 64 MiB of it."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.having({"X-Line": "x" * (64 * MIB)})


@pytest.mark.parametrize("fault", [EndlessHeaders(), EndlessLine()], ids=["lines", "one line"])
def test_headers_without_end(desk: Desk, site: Site, fault: Fault) -> None:
    """An error, and no more memory than any other fetch: the interpreter alone takes about 40."""
    offer(desk, site, "small")
    site.fault("*", fault)
    told = measured(desk, "small")
    assert told["code"] == 4
    assert "libcurl error" not in told["error"]  # a number is no reason
    assert told["peak"] < 100


# --- Ways -----------------------------------------------------------------------------------------


def _loop(site: Site) -> None:
    for number in range(3):
        site.fault(f"/{number}", Redirect(f"/{(number + 1) % 3}"))


def _chain(site: Site) -> None:
    site.fault("*", Onward())


def _long_chain(site: Site) -> None:
    """Ten thousand, and then the file."""
    for number in range(10_000):
        site.fault(f"/{number}", Redirect(f"/{number + 1}"))
    site.fault("/10000", Redirect("/small.bin"))


@pytest.mark.parametrize("build", [_loop, _chain, _long_chain])
@pytest.mark.parametrize("closes", [False, True], ids=["", "closes"])
def test_redirects_without_end(
    desk: Desk, site: Site, build: Callable[[Site], None], closes: bool
) -> None:
    """Twenty are followed, as browsers do; what leads nowhere is not asked again."""
    build(site)
    if closes:
        site.fault("*", HangUp())
    desk.offer("small", artifact("small.bin", SMALL, site.url("/0")))
    error = error_of(desk.fetch("small"))
    assert error.code == 4
    assert "redirected more than 20 times" in str(error)
    assert len(site.requests) == 21


# --- Papers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: certificate(folder, days=-1), "expired"),
        (self_signed, "self"),
    ],
    ids=["expired", "self-signed"],
)
def test_a_certificate_that_proves_nothing(
    tmp_path: Path, site: Site, make: Callable[[Path], Certificate], word: str
) -> None:
    """The reason is told, nothing is asked of that server, nor is it tried again; the next is."""
    papers = make(tmp_path / "papers")
    trust = {"ca_bundle": str(papers.authority)} if word == "expired" else {}
    (tmp_path / "files").mkdir()
    (tmp_path / "files/small.bin").write_bytes(SMALL)
    with nginx(tmp_path / "files", tmp_path / "nginx", tls=papers.pair) as server:
        desk = Desk(tmp_path, **trust)
        bad = f"{server.url}/small.bin"
        desk.offer("only", artifact("small.bin", SMALL, bad))
        error = error_of(desk.fetch("only"))
        assert error.code == 4
        assert bad in str(error)
        assert "certificate" in str(error)
        assert word in str(error)
        assert not desk.retries
        desk.offer("both", artifact("small.bin", SMALL, bad, site.url("/small.bin")))
        assert desk.fetch("both").unwrap().read_bytes() == SMALL
        assert not server.requests()
