"""Answers as pure values: `Asked` and `Entity` make a `Reply`, which says all that goes out.

It knows no sockets: how a reply travels is written down in its `Wire`, for the server to do.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from itertools import chain, repeat
from typing import Any

BEFORE_ANSWER = -1
"""A place to drop or to stall: the request has been read, and not even a status line was sent."""

HTML = b"<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Sorry</h1></body></html>\n"

_PIECE = 1 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Ending(Enum):
    """How an answer ends before its end."""

    FIN = "closed in order"
    RST = "reset"
    STALL = "left open, and silent for ever"


class Framing(Enum):
    """How the receiver learns where the body ends."""

    LENGTH = "Content-Length"
    CHUNKED = "Transfer-Encoding: chunked"
    CLOSE = "end of the connection"


@dataclass(frozen=True)
class Asked:
    """One request; `number` counts those of its path from 1, header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    number: int


@dataclass(frozen=True)
class Entity:
    """What stands at a path: its bytes and its validators (an empty one is not sent)."""

    content: bytes
    etag: str
    modified: str
    found: bool = True


@dataclass(frozen=True)
class Wire:
    """How a reply travels; `stop_at` counts bytes of the body, `beyond` those after its end."""

    delay: float = 0.0
    piece: int = _PIECE
    pause: float = 0.0
    stop_at: int | None = None
    beyond: int = 0
    ending: Ending = Ending.FIN
    endless_headers: bool = False
    endless_body: bool = False
    hang_up: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer: what it says, and how it travels."""

    status: int
    headers: Mapping[str, str]
    body: memoryview
    framing: Framing = Framing.LENGTH
    wire: Wire = field(default_factory=Wire)

    def having(self, headers: Mapping[str, str]) -> Reply:
        """The same reply with these headers set; an empty value takes a header away."""
        return replace(self, headers={**self.headers, **headers})

    def travelling(self, **changes: Any) -> Reply:
        """The same reply, sent in another way: `changes` are fields of `Wire`."""
        return replace(self, wire=replace(self.wire, **changes))

    def instead(self, other: Reply) -> Reply:
        """Another reply that travels as this one would: so a refusal can be slow, or dropped."""
        return replace(other, framing=self.framing, wire=self.wire)


def entity_of(content: bytes) -> Entity:
    """The entity of some bytes; ETag and date follow from the bytes, and change with them."""
    digest = hashlib.sha256(content).hexdigest()
    modified = formatdate(1_600_000_000 + int(digest[:6], 16), usegmt=True)
    return Entity(content, f'"{digest[:32]}"', modified)


def answer(asked: Asked, entity: Entity) -> Reply:
    """What a faultless server says."""
    if not entity.found:
        return page(404)
    span = asked_range(asked, entity)
    if span is None:
        return whole(entity)
    if not span:
        return page(416).having({"Content-Range": f"bytes */{len(entity.content)}"})
    return part(entity, span)


def asked_range(asked: Asked, entity: Entity) -> range | None:
    """The bytes asked for: None for all of them, an empty range where there are none to give.

    RFC 9110: only GET has ranges (14.2), a range that makes no sense is ignored (14.1.1), and
    If-Range takes a date or a strong ETag that is exactly ours (13.1.5). Several ranges at once are
    ignored, as any server may do.
    """
    match = _RANGE.fullmatch(asked.headers.get("range", ""))
    if asked.method != "GET" or match is None or not _still_same(asked, entity):
        return None
    first, last = match.groups()
    size = len(entity.content)
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(int(last) + 1, size) if last else size)


def _still_same(asked: Asked, entity: Entity) -> bool:
    condition = asked.headers.get("if-range")
    if condition is None:
        return True
    return condition in (entity.etag, entity.modified) and not condition.startswith("W/")


def whole(entity: Entity) -> Reply:
    """The entity as 200."""
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": entity.etag,
        "Last-Modified": entity.modified,
    }
    return Reply(200, headers, memoryview(entity.content))


def part(entity: Entity, span: range) -> Reply:
    """A range of the entity as 206."""
    reply = whole(entity).having(
        {"Content-Range": f"bytes {span.start}-{span.stop - 1}/{len(entity.content)}"}
    )
    return replace(reply, status=206, body=reply.body[span.start : span.stop])


def page(status: int, html: bytes = HTML) -> Reply:
    """A web page, where the client hoped for data."""
    return Reply(status, {"Content-Type": "text/html; charset=utf-8"}, memoryview(html))


def http_date(seconds_from_now: float) -> str:
    """A date as Retry-After may have it; whole seconds, as HTTP knows no finer ones."""
    return formatdate(time.time() + seconds_from_now, usegmt=True)


def head(reply: Reply) -> bytes:
    """The status line and the headers, up to the empty line."""
    phrase = HTTPStatus(reply.status).phrase
    headers = {"Date": http_date(0), **reply.headers, **_framing_headers(reply)}
    lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value]
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{''.join(lines)}\r\n".encode("latin-1")


def _framing_headers(reply: Reply) -> dict[str, str]:
    match reply.framing:
        case Framing.LENGTH:
            return {"Content-Length": str(len(reply.body))}
        case Framing.CHUNKED:
            return {"Transfer-Encoding": "chunked"}
        case Framing.CLOSE:
            return {"Connection": "close"}


def pieces(reply: Reply) -> Iterator[memoryview]:
    """The body as it goes out, piece by piece, up to the place where it stops."""
    left = reply.wire.stop_at
    for piece in _stream(reply):
        if left is None:
            yield piece
            continue
        if left <= 0:
            return
        yield piece[:left]
        left -= len(piece)


def _stream(reply: Reply) -> Iterable[memoryview]:
    size = reply.wire.piece
    body = (reply.body[start : start + size] for start in range(0, len(reply.body), size))
    if reply.wire.endless_body:
        return chain(body, repeat(memoryview(bytes(size))))
    return chain(body, [memoryview(bytes(reply.wire.beyond))] if reply.wire.beyond else [])
