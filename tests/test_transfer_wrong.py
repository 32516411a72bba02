"""Bytes that are not what the registry promised: named, kept for a look, and tried elsewhere."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dscache.errors import IntegrityError, ManualDownload, TransferError
from tests.downloads import Desk, error_of
from tests.making import artifact, content, md5
from tests.origin import (
    LOGIN,
    Chunked,
    CloseDelimited,
    Drop,
    Endless,
    Fault,
    Flip,
    Gzipped,
    LoginPage,
    Long,
    Refuse,
    Short,
    Site,
    origin,
)

MIB = 1 << 20
SMALL, BIG = content(100_000, 1), content(3 * MIB, 2)
FILES = {"/small.bin": SMALL, "/big.bin": BIG, "/two/small.bin": SMALL, "/two/big.bin": BIG}


@pytest.fixture
def site() -> Iterator[Site]:
    with origin(FILES) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def offer(desk: Desk, site: Site, name: str, *paths: str, **keys: Any) -> bytes:
    """An entry of one file with a mirror at each of the paths."""
    data = FILES[f"/{name}.bin"]
    urls = [site.url(path) for path in paths or (f"/{name}.bin",)]
    desk.offer(name, artifact(f"{name}.bin", data, *urls, **keys))
    return data


NAMES = pytest.mark.parametrize("name", ["small", "big"])


@NAMES
def test_a_login_page_is_named_and_kept(desk: Desk, site: Site, name: str) -> None:
    offer(desk, site, name)
    site.fault("*", LoginPage())
    error = error_of(desk.fetch(name))
    assert isinstance(error, IntegrityError)
    assert error.code == 5
    assert "web page" in str(error)
    assert "text/html" in str(error)
    assert "<!DOCTYPE html>" in str(error)
    assert error.facts["sha256" if "sha256" in error.facts else "path"]
    assert str(len(FILES[f"/{name}.bin"])) in str(error)
    assert desk.quarantine == [LOGIN]
    assert error.facts["quarantine"][0] in error.hint
    assert len(site.requests) == 1
    assert not desk.parts


@NAMES
@pytest.mark.parametrize(
    "faults",
    [(LoginPage(),), (LoginPage(), Chunked()), (LoginPage(), CloseDelimited())],
    ids=["length", "chunked", "close"],
)
def test_a_login_page_from_the_first_mirror(
    desk: Desk, site: Site, name: str, faults: tuple[Fault, ...]
) -> None:
    data = offer(desk, site, name, f"/{name}.bin", f"/two/{name}.bin")
    site.fault(f"/{name}.bin", *faults)
    assert desk.fetch(name).unwrap().read_bytes() == data
    assert len(site.requests) == 2
    assert desk.quarantine == [LOGIN]
    (notice,) = desk.notices
    assert site.url(f"/{name}.bin") in notice
    assert "web page" in notice


@NAMES
def test_a_login_page_of_unknown_size(desk: Desk, site: Site, name: str) -> None:
    data = offer(desk, site, name, f"/{name}.bin", f"/two/{name}.bin", size=None)
    site.fault(f"/{name}.bin", LoginPage())
    assert desk.fetch(name).unwrap().read_bytes() == data
    (notice,) = desk.notices
    assert "wrong sha256 (a web page, text/html, beginning with " in notice


@NAMES
@pytest.mark.parametrize("fault", [Flip(), Flip(-1), Long(), Long(5 * MIB)], ids=repr)
def test_wrong_bytes_from_the_first_mirror(desk: Desk, site: Site, name: str, fault: Fault) -> None:
    data = offer(desk, site, name, f"/{name}.bin", f"/two/{name}.bin")
    site.fault(f"/{name}.bin", fault)
    found = desk.fetch(name)
    assert found.unwrap().read_bytes() == data
    assert [seen.path for seen in site.requests] == [f"/{name}.bin", f"/two/{name}.bin"]
    assert not site.requests[1].range
    (notice,) = desk.notices
    assert site.url(f"/{name}.bin") in notice
    assert "/two/" not in notice
    assert len(desk.quarantine) == 1


@NAMES
@pytest.mark.parametrize("fault", [Flip(), Long(7)], ids=repr)
def test_wrong_bytes_everywhere_are_asked_for_once(
    desk: Desk, site: Site, name: str, fault: Fault
) -> None:
    offer(desk, site, name, f"/{name}.bin", f"/two/{name}.bin")
    site.fault("*", fault)
    error = error_of(desk.fetch(name))
    assert isinstance(error, IntegrityError)
    assert [seen.path for seen in site.requests] == [f"/{name}.bin", f"/two/{name}.bin"]
    assert len(error.facts["sources"]) == 2
    assert len(desk.quarantine) == 2
    assert not desk.parts
    assert not desk.below("blobs")


def test_a_wrong_hash_in_the_registry_ends(desk: Desk, site: Site) -> None:
    """And a retry by hand asks once more, no more."""
    desk.offer("big", artifact("big.bin", content(3 * MIB, 9), site.url("/big.bin")))
    for number in (1, 2):
        assert error_of(desk.fetch("big")).code == 5
        assert len(site.requests) == number


def test_another_checksum_of_the_registry_is_wrong(desk: Desk, site: Site) -> None:
    offer(desk, site, "big", checksums=[md5(b"something else")])
    error = error_of(desk.fetch("big"))
    assert error.code == 5
    assert "wrong md5" in str(error)


@NAMES
@pytest.mark.parametrize("fault", [Short(), Short(50_000)], ids=repr)
def test_a_body_that_stays_short(desk: Desk, site: Site, name: str, fault: Fault) -> None:
    """It is the length that is wrong, not a hash; and another mirror may have more."""
    offer(desk, site, name, f"/{name}.bin", f"/two/{name}.bin")
    site.fault("*", fault)
    error = error_of(desk.fetch(name))
    assert isinstance(error, TransferError)
    assert error.code == 4
    assert "bytes instead of" in str(error)
    assert "sha256" not in str(error)
    assert len(site.requests) == 2
    site.mend()
    site.fault(f"/{name}.bin", fault)
    assert desk.fetch(name).error is None


@NAMES
def test_a_body_that_stays_short_without_a_length(desk: Desk, site: Site, name: str) -> None:
    data = offer(desk, site, name)
    site.fault("*", Short(10), CloseDelimited())
    error = error_of(desk.fetch(name))
    assert error.code == 4
    assert f"ended after {len(data) - 10} of {len(data)} bytes" in str(error)
    assert len(site.requests) <= 2 + desk.settings.retries


@NAMES
@pytest.mark.parametrize("size", [1, 50_000])
def test_the_size_in_the_registry_is_wrong(desk: Desk, site: Site, name: str, size: int) -> None:
    data = FILES[f"/{name}.bin"]
    offer(desk, site, name, size=size)
    error = error_of(desk.fetch(name))
    assert error.code == 5
    assert f"{len(data)} bytes instead of {size}" in str(error)


@NAMES
def test_an_endless_body_is_stopped(desk: Desk, site: Site, name: str) -> None:
    data = offer(desk, site, name, f"/{name}.bin", f"/two/{name}.bin")
    site.fault(f"/{name}.bin", Endless())
    assert desk.fetch(name).unwrap().read_bytes() == data
    assert site.sent(f"/{name}.bin") < len(data) + 64 * MIB
    assert "more than" in desk.notices[0]


def test_an_endless_body_of_unknown_size_is_stopped(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path, max_unknown_size="8MiB")
    offer(desk, site, "big", size=None)
    site.fault("*", Endless())
    error = error_of(desk.fetch("big"))
    assert error.code == 5
    assert "more than 8.39 MB" in str(error)
    assert not desk.parts


def test_an_unknown_size_below_the_limit(tmp_path: Path, site: Site) -> None:
    desk = Desk(tmp_path, max_unknown_size=len(BIG))
    data = offer(desk, site, "big", size=None)
    site.fault("*", CloseDelimited())
    assert desk.fetch("big").unwrap().read_bytes() == data


# --- Content-Encoding -----------------------------------------------------------------------------


@NAMES
@pytest.mark.parametrize("keys", [{}, {"size": None}], ids=["size", "no size"])
def test_gzip_that_nobody_asked_for(
    desk: Desk, site: Site, name: str, keys: dict[str, Any]
) -> None:
    data = offer(desk, site, name, **keys)
    site.fault("*", Gzipped())
    found = desk.fetch(name)
    assert found.unwrap().read_bytes() == data
    assert len(site.requests) == 1
    assert not desk.parts


def test_gzip_that_makes_much_less(desk: Desk, site: Site) -> None:
    data = b"the same line again and again\n" * 200_000
    site.files["/text.csv"] = data
    desk.offer("text", artifact("text.csv", data, site.url("/text.csv")))
    site.fault("*", Gzipped())
    found = desk.fetch("text")
    assert found.unwrap().read_bytes() == data
    assert found.bytes_downloaded < len(data) / 20


@NAMES
def test_a_gz_file_that_is_served_with_its_encoding(desk: Desk, site: Site, name: str) -> None:
    """As some servers do: the raw bytes are the file."""
    plain = FILES[f"/{name}.bin"]
    site.files["/a.gz"] = plain
    packed = gzip.compress(plain, compresslevel=1, mtime=0)

    desk.offer("gz", artifact("a.gz", packed, site.url("/packed.gz")))
    site.files["/packed.gz"] = packed
    site.fault("/packed.gz", _Labelled())
    assert desk.fetch("gz").unwrap().read_bytes() == packed


class _Labelled(Fault):
    def on_reply(self, asked: Any, entity: Any, reply: Any) -> Any:
        return reply.having({"Content-Encoding": "gzip"})


@pytest.mark.parametrize(("path", "is_kept"), [("/a.gz", True), ("/a.csv", False)])
def test_gzip_where_no_hash_is_known(desk: Desk, site: Site, path: str, is_kept: bool) -> None:
    """The name tells what the user wants."""
    packed = gzip.compress(SMALL, mtime=0)
    site.files[path] = packed
    site.fault(path, _Labelled())
    found = desk.retrieve(site.url(path), None)
    assert found.unwrap().read_bytes() == (packed if is_kept else SMALL)


def test_gzip_that_breaks_off_starts_over(desk: Desk, site: Site) -> None:
    """A range of the plain bytes would not fit behind zipped ones."""
    data = offer(desk, site, "big")
    site.fault("*", Gzipped())
    site.fault("*", Drop(MIB), times=1)
    assert desk.fetch("big").unwrap().read_bytes() == data
    assert not any(seen.range for seen in site.requests)


@NAMES
def test_something_else_that_calls_itself_gzip(desk: Desk, site: Site, name: str) -> None:
    data = offer(desk, site, name, f"/{name}.bin", f"/two/{name}.bin")
    site.fault(f"/{name}.bin", Flip(), _Labelled())
    assert desk.fetch(name).unwrap().read_bytes() == data
    assert "gzip" in desk.notices[0]


def test_a_gzip_bomb_is_stopped(desk: Desk, site: Site) -> None:
    bomb = gzip.compress(bytes(256 * MIB))
    site.files["/bomb"] = bomb
    site.fault("/bomb", _Labelled())
    desk.offer("bomb", artifact("small.bin", SMALL, site.url("/bomb")))
    assert error_of(desk.fetch("bomb")).code in (4, 5)
    used = sum(path.stat().st_size for path in desk.below())
    assert used < 4 * MIB


def test_an_encoding_that_cannot_be_decoded(desk: Desk, site: Site) -> None:
    class Brotli(Fault):
        def on_reply(self, asked: Any, entity: Any, reply: Any) -> Any:
            return reply.having({"Content-Encoding": "br"})

    data = offer(desk, site, "big")
    site.fault("*", Brotli())
    assert desk.fetch("big").unwrap().read_bytes() == data


# --- Statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(desk: Desk, site: Site, status: int) -> None:
    data = offer(desk, site, "small", "/small.bin", "/two/small.bin")
    site.fault("/small.bin", Refuse(status))
    assert desk.fetch("small").unwrap().read_bytes() == data
    assert [seen.path for seen in site.requests] == ["/small.bin", "/two/small.bin"]


def test_a_refusal_everywhere(desk: Desk, site: Site) -> None:
    offer(desk, site, "small", "/small.bin", "/two/small.bin")
    site.fault("*", Refuse(404))
    error = error_of(desk.fetch("small"))
    assert error.code == 4
    assert str(error).count("the server answered 404") == 2
    assert len(site.requests) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_where_a_person_may_help(desk: Desk, site: Site, status: int) -> None:
    offer(desk, site, "small", manual="Sign the licence at example.org.")
    site.fault("*", Refuse(status))
    error = error_of(desk.fetch("small"))
    assert isinstance(error, ManualDownload)
    assert error.code == 3
    assert "Sign the licence" in str(error)


def test_another_failure_where_a_person_may_help(desk: Desk, site: Site) -> None:
    offer(desk, site, "small", manual="Sign the licence at example.org.")
    site.fault("*", Refuse(500))
    assert error_of(desk.fetch("small")).code == 4


def test_one_file_with_two_names_is_fetched_once(desk: Desk, site: Site) -> None:
    url = site.url("/big.bin")
    desk.offer("one", artifact("a.bin", BIG, url), artifact("b.bin", BIG, url))
    desk.offer("two", artifact("c.bin", BIG, url))
    one, two = desk.fetch_all("one", "two")
    assert (one.unwrap() / "b.bin").read_bytes() == two.unwrap().read_bytes() == BIG
    assert site.sent("/big.bin") == len(BIG)


@NAMES
def test_one_file_with_two_names_has_the_sources_of_both(desk: Desk, site: Site, name: str) -> None:
    data = FILES[f"/{name}.bin"]
    desk.offer("one", artifact("a.bin", data, site.url("/missing.bin")))
    desk.offer("two", artifact("b.bin", data, site.url(f"/two/{name}.bin")))
    one, two = desk.fetch_all("one", "two")
    assert two.unwrap().read_bytes() == data
    assert error_of(one).code == 4
    assert [seen.path for seen in site.requests] == ["/missing.bin", f"/two/{name}.bin"]
