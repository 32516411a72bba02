"""All sources as one: who serves which URL, rewriting, and life without pycurl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dscache import settings
from dscache.errors import InvalidFile, TransferError, UnsafeError
from dscache.sources.dispatch import Sources, rewritten
from dscache.sources.exchange import Request, Trouble
from dscache.sources.retry import Policy
from dscache.sources.small import Answer, read_small
from tests.children import running
from tests.downloads import Desk, answered, ended
from tests.making import artifact, content
from tests.origin import (
    CloseDelimited,
    Drop,
    Endless,
    Gzipped,
    OtherETag,
    Redirect,
    Refuse,
    Site,
    origin,
)

DATA = content(100_000)
POLICY = Policy(retries=2)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, "https://a.org/x/y"),
        ({"https://b.org/": "http://m/"}, "https://a.org/x/y"),
        ({"https://a.org/": "http://m/"}, "http://m/x/y"),
        ({"https://a.org/": "http://m/", "https://a.org/x/": "http://n/"}, "http://n/y"),
        ({"https://a.org/x/": "http://n/", "https://a.org/": "http://m/"}, "http://n/y"),
        ({"https://a.org/x/y": "http://m/z"}, "http://m/z"),
        ({"https://a.org/x/y/": "http://m/z"}, "https://a.org/x/y"),
    ],
)
def test_the_longest_prefix_wins(table: Mapping[str, str], expected: str) -> None:
    assert rewritten("https://a.org/x/y", table) == expected


@pytest.fixture
def site() -> Iterator[Site]:
    with origin({"/a.bin": DATA}) as found:
        yield found


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Sources]:
    made = Sources(settings.load(stall_timeout=1), str(tmp_path / "parts"), lambda _: None)
    yield made
    made.close()


def test_kinds_of_sources_serve_side_by_side(sources: Sources, site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)
    urls = [(tmp_path / "a.bin").as_uri(), site.url("/a.bin"), "file:///nonexistent/file"]
    exchanges = [sources.start(Request(url)) for url in urls]
    assert ended(sources, *exchanges) == [DATA, DATA, b""]
    assert exchanges[2].failure is not None


def test_an_unknown_protocol_is_a_failure(sources: Sources) -> None:
    exchange, _ = answered(sources, "gopher://127.0.0.1/a")
    assert exchange.failure.trouble is Trouble.REFUSED


def test_a_rewritten_url_is_asked_for_and_the_original_is_told(site: Site, tmp_path: Path) -> None:
    desk = Desk(tmp_path, rewrite={"https://data.example.org/": f"{site.base}/"})
    desk.offer(
        "one",
        artifact("a.bin", DATA, "https://data.example.org/a.bin"),
        artifact("b.bin", content(7), "https://data.example.org/missing.bin"),
    )
    found = desk.fetch("one")
    assert site.sent("/a.bin") == len(DATA)
    assert "https://data.example.org/missing.bin" in str(found.error)
    assert site.base not in str(found.error)


# --- Small files ----------------------------------------------------------------------------------


def small(sources: Sources, url: str, known: str = "", limit: int = 1 << 20) -> Answer:
    return read_small(sources, url, limit=limit, policy=POLICY, known=known)


def test_a_small_file(sources: Sources, site: Site) -> None:
    answer = small(sources, site.url("/a.bin"))
    assert answer.data == DATA
    assert answer.validator.startswith('"')
    again = small(sources, site.url("/a.bin"), answer.validator)
    assert again.data == DATA or again.unchanged


def test_a_small_file_that_is_unchanged(sources: Sources, site: Site) -> None:
    site.fault("/a.bin", Refuse(304))
    assert small(sources, site.url("/a.bin"), '"known"') == Answer(unchanged=True)
    assert site.requests[0].headers["if-none-match"] == '"known"'


@pytest.mark.parametrize("status", [404, 410])
def test_a_small_file_that_is_not_there(sources: Sources, site: Site, status: int) -> None:
    site.fault("/a.bin", Refuse(status))
    assert small(sources, site.url("/a.bin")) == Answer()


def test_a_small_file_after_failures(sources: Sources, site: Site) -> None:
    site.fault("/a.bin", Drop(100), times=1)
    site.fault("/a.bin", Refuse(503), times=1, skip=1)
    assert small(sources, site.url("/a.bin")).data == DATA
    assert len(site.requests) == 3


def test_a_small_file_that_cannot_be_had(sources: Sources, site: Site) -> None:
    site.fault("/a.bin", Refuse(500))
    with pytest.raises(TransferError, match="500") as caught:
        small(sources, f"{site.url('/a.bin')}?token=secret")
    assert "secret" not in f"{caught.value} {caught.value.facts}"
    assert len(site.requests) == 3


def test_a_small_file_that_is_not_small(sources: Sources, site: Site) -> None:
    site.fault("/a.bin", Endless())
    with pytest.raises(InvalidFile, match="longer"):
        small(sources, site.url("/a.bin"))


def test_a_small_file_that_was_zipped_unasked(sources: Sources, site: Site) -> None:
    site.fault("/a.bin", Gzipped())
    assert small(sources, site.url("/a.bin")).data == DATA


def test_a_small_file_behind_a_redirect(sources: Sources, site: Site) -> None:
    site.fault("/b.bin", Redirect("/a.bin"))
    site.fault("/c.bin", Redirect("file:///etc/passwd"))
    assert small(sources, site.url("/b.bin")).data == DATA
    with pytest.raises(UnsafeError):
        small(sources, site.url("/c.bin"))


def test_a_date_is_no_validator_of_small_files(sources: Sources, site: Site) -> None:
    site.fault("/a.bin", OtherETag('W/"weak"'), CloseDelimited())
    assert small(sources, site.url("/a.bin")).validator == ""


# --- Without pycurl -------------------------------------------------------------------------------

WITHOUT_PYCURL = """
import json, sys
sys.modules["pycurl"] = None
from dscache.cache import Cache
from dscache.events import Notice
told = []
results = Cache().fetch_all(sys.argv[1:], progress=told.append)
print(json.dumps({
    "codes": [each.error.code if each.error else 0 for each in results],
    "errors": [str(each.error or "") for each in results],
    "notices": [each.message for each in told if isinstance(each, Notice)],
}))
"""


def test_without_pycurl_pooch_serves(site: Site, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    site.files |= {"/big.bin": content(3 << 20), "/wrong.bin": content(100_000, 9)}
    site.fault("/away.bin", Redirect("/a.bin"))
    site.fault("/zipped.bin", Refuse(503), times=1)
    site.files["/zipped.bin"] = content(10)
    cases = {
        "small": artifact("a.bin", DATA, site.url("/away.bin")),
        "big": artifact("big.bin", site.files["/big.bin"], site.url("/big.bin")),
        "again": artifact("zipped.bin", content(10), site.url("/zipped.bin")),
        "wrong": artifact("wrong.bin", content(100_000, 8), site.url("/wrong.bin")),
        "missing": artifact("b.bin", content(7), f"{site.url('/missing.bin')}#x"),
        "nobody": artifact("c.bin", content(8), "http://127.0.0.1:1/c.bin"),
    }
    for name, each in cases.items():
        desk.offer(name, each)
    environment = {
        "DSCACHE_REGISTRIES": str(desk.shelf.folder),
        "DSCACHE_CONFIG": str(tmp_path / "config.toml"),
        "DSCACHE_DIR": str(desk.root),
    }
    (tmp_path / "config.toml").write_text("retries = 1\n")
    with running(WITHOUT_PYCURL, *cases, environment=environment) as child:
        output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    told = json.loads(output)
    assert dict(zip(cases, told["codes"], strict=True)) == {
        "small": 0,
        "big": 0,
        "again": 0,
        "wrong": 5,
        "missing": 4,
        "nobody": 4,
    }
    assert "404" in told["errors"][4]
    assert sum("no pycurl" in notice for notice in told["notices"]) == 1
    assert errors == ""
    assert not [path for path in desk.below("parts") if path.name.startswith("pooch")]
