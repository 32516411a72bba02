"""What HTTP answers mean: tables of status lines, headers and redirects, and nothing on a wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dscache.sources.answers import (
    MAX_REDIRECTS,
    interpret,
    quoted,
    read_head,
    redirect_failure,
    redirect_target,
    retry_after,
)
from dscache.sources.exchange import Failure, Head, Request, Trouble

URL = "https://data.example.org/folder/a.bin"
WHOLE = Request(URL)
REST = Request(URL, 100, '"tag"')


@pytest.mark.parametrize(
    ("request_", "status", "headers", "head"),
    [
        (WHOLE, 200, {}, Head()),
        (WHOLE, 200, {"content-length": "42"}, Head(total=42)),
        (WHOLE, 200, {"content-length": "none"}, Head()),
        (WHOLE, 200, {"content-length": "²"}, Head()),
        (WHOLE, 200, {"etag": '"a"', "last-modified": "x"}, Head(validator='"a"')),
        (WHOLE, 200, {"etag": 'W/"a"', "last-modified": "x"}, Head(validator="x")),
        (WHOLE, 200, {"etag": 'W/"a"'}, Head()),
        (WHOLE, 200, {"content-type": "Text/HTML; charset=x"}, Head(media_type="text/html")),
        (WHOLE, 200, {"content-encoding": "GZIP"}, Head(encoding="gzip")),
        (WHOLE, 200, {"content-encoding": "identity"}, Head()),
        (REST, 200, {"content-length": "42"}, Head(total=42)),
        (REST, 206, {"content-range": "bytes 100-199/200"}, Head(start=100, total=200)),
        (REST, 206, {"content-range": "Bytes 100-199/200"}, Head(start=100, total=200)),
        (REST, 206, {"content-range": "bytes 100-199/*"}, Head(start=100)),
        (WHOLE, 206, {"content-range": "bytes 0-199/200"}, Head(total=200)),
    ],
)
def test_answers_that_bring_bytes(
    request_: Request, status: int, headers: dict[str, str], head: Head
) -> None:
    assert interpret(request_, status, headers) == head


@pytest.mark.parametrize(
    ("status", "headers", "trouble"),
    [
        (206, {}, Trouble.RANGE),
        (206, {"content-range": "bytes 99-199/200"}, Trouble.RANGE),
        (206, {"content-range": "bytes 0-99/200"}, Trouble.RANGE),
        (206, {"content-range": "items 100-199/200"}, Trouble.RANGE),
        (206, {"content-range": "bytes */200"}, Trouble.RANGE),
        (416, {"content-range": "bytes */200"}, Trouble.RANGE),
        (0, {}, Trouble.REFUSED),
        (204, {}, Trouble.REFUSED),
        (300, {}, Trouble.REFUSED),
        (304, {}, Trouble.REFUSED),
        (400, {}, Trouble.REFUSED),
        (401, {}, Trouble.REFUSED),
        (403, {"retry-after": "5"}, Trouble.REFUSED),
        (404, {}, Trouble.REFUSED),
        (408, {}, Trouble.BUSY),
        (410, {}, Trouble.REFUSED),
        (425, {}, Trouble.BUSY),
        (429, {}, Trouble.BUSY),
        (500, {}, Trouble.BUSY),
        (502, {}, Trouble.BUSY),
        (503, {}, Trouble.BUSY),
        (599, {}, Trouble.BUSY),
    ],
)
def test_answers_that_bring_none(status: int, headers: dict[str, str], trouble: Trouble) -> None:
    answer = interpret(REST, status, headers)
    assert isinstance(answer, Failure)
    assert answer.trouble is trouble
    assert answer.status == status
    assert answer.reason


def test_a_busy_server_says_when() -> None:
    answer = interpret(WHOLE, 503, {"retry-after": "7"})
    assert isinstance(answer, Failure)
    assert answer.retry_after == 7


NOON = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 08:50:37 -0000", 60),
        ("Sun, 06 Nov 1994 10:50:37 +0200", 60),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("9" * 400, None),
        ("Sun, 99 Nov 1994 08:50:37 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after(text, NOON) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_is_an_error(text: str) -> None:
    found = retry_after(text)
    assert found is None or found >= 0


def _lines(text: str) -> list[bytes]:
    return [line.encode("latin-1") + b"\r\n" for line in text.split("\n")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('HTTP/1.1 200 OK\nETag: "a"\nX-Other: b\n', (200, {"etag": '"a"'})),
        ("HTTP/2 404 \n", (404, {})),
        ("HTTP/1.1 200\n", (200, {})),
        ("HTTP/1.1 404 Not: Found\nlocation:x\n", (404, {"location": "x"})),
        ('HTTP/1.1 200 OK\nETag: "a"', None),
        ("HTTP/1.1 100 Continue\n", None),
        ('HTTP/1.1 103 Early\nETag: "a"\n\nHTTP/1.1 200 OK\n', (200, {})),
        ("HTTP/1.1 200 OK\n\nETag: trailer\n", (200, {})),
        ("HTTP/1.1 200 OK\nETAG :x\n", (200, {})),
        ("HTTP/1.1 oops\n", None),
        ("", None),
    ],
)
def test_heads(text: str, expected: tuple[int, dict[str, str]] | None) -> None:
    assert read_head(_lines(text)) == expected


@given(st.lists(st.binary(max_size=60)))
def test_no_head_is_an_error(lines: list[bytes]) -> None:
    found = read_head(lines)
    assert found is None or found[0] >= 200


@pytest.mark.parametrize(
    ("status", "location", "target"),
    [
        (301, "/b", "https://data.example.org/b"),
        (302, "b", "https://data.example.org/folder/b"),
        (303, "//other.org/b", "https://other.org/b"),
        (307, "http://other.org/b?c=d", "http://other.org/b?c=d"),
        (308, "../b c", "https://data.example.org/b%20c"),
        (302, "/%20b", "https://data.example.org/%20b"),
        (302, "/\xc3\xbc", "https://data.example.org/%C3%BC"),
        (302, "", ""),
        (200, "/b", ""),
        (300, "/b", ""),
        (304, "/b", ""),
    ],
)
def test_where_a_redirect_leads(status: int, location: str, target: str) -> None:
    assert redirect_target(URL, status, {"location": location}) == target


@pytest.mark.parametrize(
    ("url", "target", "trouble"),
    [
        ("https://a.org/x", "https://b.org/y", None),
        ("http://a.org/x", "http://b.org/y", None),
        ("http://a.org/x", "https://b.org/y", None),
        ("https://a.org/x", "http://a.org/x", Trouble.UNSAFE),
        ("HTTPS://a.org/x", "http://a.org/x", Trouble.UNSAFE),
        ("https://a.org/x", "HTTP://a.org/x", Trouble.UNSAFE),
        ("http://a.org/x", "ftp://a.org/x", Trouble.UNSAFE),
        ("http://a.org/x", "file:///etc/passwd", Trouble.UNSAFE),
        ("https://a.org/x", "gopher://a.org/x", Trouble.UNSAFE),
    ],
)
def test_which_redirects_are_followed(url: str, target: str, trouble: Trouble | None) -> None:
    failure = redirect_failure(url, target, 1)
    assert (failure and failure.trouble) == trouble


def test_a_redirect_that_is_refused_tells_no_secret() -> None:
    failure = redirect_failure("https://a.org/x", "http://u:secret@b.org/secret?secret", 1)
    assert failure is not None
    assert "secret" not in failure.reason


def test_redirects_end() -> None:
    assert redirect_failure(URL, URL, MAX_REDIRECTS) is None
    failure = redirect_failure(URL, URL, MAX_REDIRECTS + 1)
    assert failure is not None
    assert failure.trouble is Trouble.UNUSABLE


@given(st.text(max_size=80))
def test_quoting_twice_changes_nothing(url: str) -> None:
    once = quoted(url.encode("utf-8", "replace"))
    assert once.isascii()
    assert quoted(once) == once


@pytest.mark.parametrize(
    "url", [URL, "http://[::1]:80/a%20b?c=d&e=%2F#f", "http://h/a;b,c(d)'e*~!"]
)
def test_good_urls_stay_as_they_are(url: str) -> None:
    assert quoted(url) == url
