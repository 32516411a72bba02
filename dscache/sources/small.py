"""What is small enough to wait for, with retries: registry entries and other files that fit in
memory, and whether there is a file at all.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from dscache.errors import InvalidFile, TransferError, UnsafeError
from dscache.sources.encoding import GZIP, unzipped
from dscache.sources.exchange import Failure, Head, Request, Source, Trouble
from dscache.sources.retry import Policy, delay
from dscache.urls import redacted

_MISSING = frozenset({404, 410})
#: Answers to those who want no body that need not hold for others: signed URLs are signed for GET
#: alone, and some servers know nothing else.
_NO_PROBES = frozenset({403, 405, 501})
_LOOK = 0.25

Kind = TypeVar("Kind")


class Answer(msgspec.Struct, frozen=True):
    """What a server said of one small file.

    Attributes:
        data: the file; None where the server has none.
        validator: ETag of the data; empty if none.
        unchanged: the file is still the one whose validator was sent along.
    """

    data: bytes | None = None
    validator: str = ""
    unchanged: bool = False


#: Asks for a URL, given the validator of what is known and how many bytes a file may have.
SmallReader = Callable[[str, str, int], Answer]


def read_small(source: Source, url: str, *, limit: int, policy: Policy, known: str = "") -> Answer:
    """Read a file of at most `limit` bytes; `known` is the validator of an earlier answer.

    Raises:
        TransferError: the server cannot be reached or fails, retries included.
        InvalidFile: the file is longer than `limit`.
        UnsafeError: a redirect would weaken the connection.
    """
    return _insist(lambda: _once(source, Request(url, 0, known), limit), url, policy)


def is_there(source: Source, url: str, *, policy: Policy) -> bool:
    """True if there is a file at `url` for the one who asks; its bytes are not fetched.

    Raises:
        TransferError: nobody can be asked, or not in this protocol, retries included.
        UnsafeError: a redirect would weaken the connection.
    """
    return _insist(lambda: _look(source, url), url, policy)


def _insist(ask: Callable[[], Kind | Failure], url: str, policy: Policy) -> Kind:
    """Ask until there is an answer, or no sense in asking again."""
    attempt = 0
    while True:
        answer = ask()
        if not isinstance(answer, Failure):
            return answer
        attempt += 1
        wait = delay(answer, attempt, policy)
        if answer.trouble is Trouble.UNSAFE:
            raise UnsafeError(f"{redacted(url)}: {answer.reason}", url=redacted(url))
        if wait is None:
            raise TransferError(
                f"{redacted(url)}: {answer.reason}", url=redacted(url), status=answer.status
            )
        time.sleep(wait)


def _once(source: Source, request: Request, limit: int) -> Answer | Failure:
    exchange = source.start(request)
    data = bytearray()
    try:
        while not exchange.done:
            source.wait(_LOOK)
            for chunk in exchange.take():
                data += chunk
            if len(data) > limit:
                raise InvalidFile(f"{redacted(request.url)} is longer than {limit} bytes")
        for chunk in exchange.take():
            data += chunk
    finally:
        exchange.cancel()
    failure = exchange.failure
    if failure is None:
        return _answer(bytes(data), exchange.head or Head(), limit)
    if failure.status == 304:
        return Answer(unchanged=True)
    return Answer() if failure.status in _MISSING else failure


def _look(source: Source, url: str) -> bool | Failure:
    failure = _probe(source, Request(url, is_probe=True))
    if failure and failure.status in _NO_PROBES:
        failure = _probe(source, Request(url, end=1))
    if failure is None or failure.trouble is Trouble.RANGE:  # an empty file has no first byte
        return True
    return False if failure.trouble is Trouble.REFUSED else failure


def _probe(source: Source, request: Request) -> Failure | None:
    exchange = source.start(request)
    try:
        while not (exchange.done or exchange.head):
            source.wait(_LOOK)
            exchange.take()
    finally:
        exchange.cancel()
    return None if exchange.head else exchange.failure


def _answer(data: bytes, head: Head, limit: int) -> Answer | Failure:
    if head.encoding in GZIP:
        try:
            data = b"".join(unzipped([data], limit))
        except zlib.error as error:
            return Failure(Trouble.CONNECTION, f"damaged gzip ({error})")
    # A date tells nothing of two changes within a second, and entries change at any time.
    return Answer(data, head.validator if head.validator.startswith('"') else "")
