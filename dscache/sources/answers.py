"""What HTTP answers mean: status lines, headers, redirects. Pure: values in, values out.

Knows no library that speaks HTTP, so that each of them gets the same answers.
"""

from __future__ import annotations

import re
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from datetime import UTC

from dscache.sources.exchange import Failure, Head, Request, Trouble
from dscache.urls import host

MAX_REDIRECTS = 20  # as browsers and curl's documentation have it

_HEADERS = {
    name.encode(): name
    for name in (
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "etag",
        "last-modified",
        "location",
        "retry-after",
    )
}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429})
# What URLs are made of, '%' included: parts that are quoted already stay as they are.
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"
_QUOTED = re.compile(rf"[A-Za-z0-9_.\-{re.escape(_URL_CHARACTERS)}]*")


def read_head(lines: Sequence[bytes]) -> tuple[int, dict[str, str]] | None:
    """Status and headers of an answer, names in lower case; None while they are not all here.

    Of the headers only those are kept whose meaning this module knows. Interim answers (1xx) before
    it are skipped, and trailers after its body are not looked at.
    """
    status = 0
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        if known := _HEADERS.get(name.lower()):
            headers[known] = value.strip().decode("latin-1")
        elif line.startswith(b"HTTP/"):
            status, headers = _status(line), {}
        elif status >= 200 and line in (b"\r\n", b"\n"):
            return status, headers
    return None


def interpret(request: Request, status: int, headers: Mapping[str, str]) -> Head | Failure:
    """What an answer means for the one who asked for `request`; header names in lower case.

    206 counts only if its Content-Range begins where the request did (RFC 9110, 14.4 and 15.3.7).
    """
    if status == 200:
        return _head(headers, 0, _number(headers.get("content-length", "")))
    if status == 206:
        span = headers.get("content-range", "").lower()
        found = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)", span)
        if not found or int(found[1]) != request.start:
            return Failure(Trouble.RANGE, "the server sent another range than asked for", status)
        return _head(headers, request.start, _number(found[3]))
    if status == 416:
        return Failure(Trouble.RANGE, "the server has no such range", status)
    if status == 407:
        return proxy_refusal()
    reason = f"the server answered {status}"
    if status in _BUSY or status >= 500:
        after = retry_after(headers.get("retry-after", ""), time_of(headers.get("date", "")))
        return Failure(Trouble.BUSY, reason, status, after)
    return Failure(Trouble.REFUSED, reason, status)


def redirect_target(url: str, status: int, headers: Mapping[str, str]) -> str:
    """Where an answer sends the one who asked for `url`; empty where it is no redirect."""
    location = headers.get("location", "")
    if status not in _REDIRECTS or not location:
        return ""
    # Headers were read as Latin-1; some servers put UTF-8 into them.
    return quoted(urllib.parse.urljoin(url, location).encode("latin-1", "replace"))


def redirect_failure(url: str, target: str, hops: int) -> Failure | None:
    """Why a redirect from `url` to `target`, the `hops`-th in a row, is not followed."""
    if hops > MAX_REDIRECTS:
        return Failure(Trouble.UNUSABLE, f"redirected more than {MAX_REDIRECTS} times")
    scheme = urllib.parse.urlsplit(target).scheme
    if scheme not in ("http", "https"):
        return Failure(Trouble.UNSAFE, f"redirected to a {scheme}: URL")
    if scheme == "http" and urllib.parse.urlsplit(url).scheme == "https":
        return Failure(Trouble.UNSAFE, f"redirected from https to http://{host(target)}")
    return None


def proxy_refusal() -> Failure:
    """What it means that a proxy answers 407, to a request or to CONNECT."""
    reason = "the proxy wants a user name and a password (407)"
    return Failure(Trouble.REFUSED, reason, 407)


def retry_after(text: str, now: float | None = None) -> float | None:
    """Seconds from a Retry-After of either form (RFC 9110, 10.2.3); None if absent or odd.

    Args:
        now: what the server takes for the present time, since its clock need not be ours.
    """
    if (seconds := _number(text.strip())) is not None:
        return float(seconds)
    when = time_of(text)
    return None if when is None else max(0.0, when - (time.time() if now is None else now))


def quoted(url: str | bytes) -> str:
    """The URL in the characters that URLs may have: what else is in it is percent-encoded."""
    if isinstance(url, str) and _QUOTED.fullmatch(url):
        return url
    return urllib.parse.quote(url, safe=_URL_CHARACTERS)


def time_of(text: str) -> float | None:
    """Seconds since 1970 from a date as HTTP writes it."""
    import email.utils  # late: only who is asked to wait looks at dates

    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _status(line: bytes) -> int:
    code = line.split(None, 2)[1:2]
    return int(code[0]) if code and code[0].isdigit() else 0


def _head(headers: Mapping[str, str], start: int, total: int | None) -> Head:
    return Head(
        start=start,
        total=total,
        validator=_validator(headers),
        media_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
        encoding=headers.get("content-encoding", "").lower().replace("identity", ""),
        date=headers.get("date", ""),
    )


def _validator(headers: Mapping[str, str]) -> str:
    etag = headers.get("etag", "")
    if etag.startswith('"'):
        return etag
    return headers.get("last-modified", "")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
