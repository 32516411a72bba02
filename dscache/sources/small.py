"""Whole small files from a server, in memory: registry entries and the like, with retries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dscache.errors import InvalidFile, TransferError, UnsafeError
from dscache.sources.exchange import Failure, Request, Source, Trouble
from dscache.sources.retry import Policy, delay
from dscache.urls import redacted

_MISSING = frozenset({404, 410})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said of one small file.

    Attributes:
        data: the file; None where the server has none.
        validator: ETag of the data; empty if none.
        unchanged: the file is still the one whose validator was sent along.
    """

    data: bytes | None = None
    validator: str = ""
    unchanged: bool = False


def read_small(source: Source, url: str, *, limit: int, policy: Policy, known: str = "") -> Answer:
    """Read a file of at most `limit` bytes; `known` is the validator of an earlier answer.

    Raises:
        TransferError: the server cannot be reached or fails, retries included.
        InvalidFile: the file is longer than `limit`.
        UnsafeError: a redirect would weaken the connection.
    """
    attempt = 0
    while True:
        answer = _once(source, Request(url, 0, known), limit)
        if isinstance(answer, Answer):
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
    chunks: list[bytes] = []
    while not exchange.done:
        source.wait(0.25)
        chunks += exchange.take()
        if sum(map(len, chunks)) > limit:
            exchange.cancel()
            raise InvalidFile(f"{redacted(request.url)} is longer than {limit} bytes")
    chunks += exchange.take()
    if exchange.failure is None:
        validator = exchange.head.validator if exchange.head else ""
        return Answer(b"".join(chunks), validator if validator.startswith('"') else "")
    if exchange.failure.status == 304:
        return Answer(unchanged=True)
    if exchange.failure.status in _MISSING:
        return Answer()
    return exchange.failure


SmallReader = Callable[[str, str], Answer]
