"""Faults: frozen values that spoil the entity or the reply of a request.

A fault overrides the stage at which it strikes; several compose in the order in which they are
given. It knows no sockets.
"""

from __future__ import annotations

import gzip
import random
import re
from dataclasses import dataclass, replace

from tests.origin.answers import (
    Asked,
    Ending,
    Entity,
    Framing,
    Reply,
    entity_of,
    page,
    part,
    whole,
)

LOGIN = b"<!DOCTYPE html><html><body><form action='/login'>Please log in.</form></body></html>\n"


class Fault:
    """Something that goes wrong. A fault overrides the stage at which it strikes."""

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        """What the server takes to stand at the path, before it looks at ranges and conditions."""
        return entity

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        """What it says, and how that travels."""
        return reply


@dataclass(frozen=True)
class Drop(Fault):
    """The connection ends after `after` bytes of the body, or BEFORE_ANSWER.

    A body that is shorter ends well. A reset waits until the client's kernel has those bytes.
    """

    after: int = 0
    how: Ending = Ending.FIN

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(stop_at=self.after, ending=self.how)


@dataclass(frozen=True)
class Unsteady(Fault):
    """A reset somewhere in each `unit` bytes of a body with the probability `share`.

    Where is fixed by the seed, the path and the number of the request. A body below a unit is one.
    """

    share: float
    seed: int = 0
    unit: int = 1 << 20

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        chance = random.Random(f"{self.seed} {asked.path} {asked.number}")
        for start in range(0, len(reply.body), self.unit):
            after = start + chance.randrange(min(self.unit, len(reply.body) - start))
            if chance.random() < self.share:
                return reply.travelling(stop_at=after, ending=Ending.RST)
        return reply


@dataclass(frozen=True)
class Stall(Fault):
    """Silence for ever after `after` bytes of the body, or BEFORE_ANSWER; the connection stays."""

    after: int = 0

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(stop_at=self.after, ending=Ending.STALL)


@dataclass(frozen=True)
class Drip(Fault):
    """A slow body: `size` bytes, then a pause of `every` seconds, and so on."""

    size: int
    every: float

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(piece=self.size, pause=self.every)


@dataclass(frozen=True)
class Late(Fault):
    """A faultless answer that begins only after some seconds."""

    seconds: float

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(delay=self.seconds)


@dataclass(frozen=True)
class HangUp(Fault):
    """A faultless answer; then the connection is closed, which no header had said."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(hang_up=True)


@dataclass(frozen=True)
class Chunked(Fault):
    """No Content-Length: the body comes in chunks."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return replace(reply, framing=Framing.CHUNKED)


@dataclass(frozen=True)
class CloseDelimited(Fault):
    """No Content-Length: the body ends where the connection does, so a cut looks like an end."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return replace(reply, framing=Framing.CLOSE)


@dataclass(frozen=True)
class Endless(Fault):
    """The body, then zeros without end; no Content-Length."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return replace(reply, framing=Framing.CLOSE).travelling(endless_body=True)


@dataclass(frozen=True)
class Overrun(Fault):
    """Zeros behind the end that the headers have announced, on the same connection."""

    by: int = 1

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(beyond=self.by)


@dataclass(frozen=True)
class EndlessHeaders(Fault):
    """One header after the other, and never a body."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.travelling(endless_headers=True)


@dataclass(frozen=True)
class IgnoreRange(Fault):
    """200 and the whole body, whatever range was asked for."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        if reply.status not in (206, 416):
            return reply
        return reply.instead(whole(entity).having({"Accept-Ranges": ""}))


@dataclass(frozen=True)
class WrongRange(Fault):
    """206 whose Content-Range is not what was asked: moved by `shift`, or of another `total`."""

    shift: int = 0
    total: int | None = None

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        if reply.status != 206:
            return reply
        first, last, total = _content_range(reply)
        told = total if self.total is None else self.total
        moved = f"{first + self.shift}-{last + self.shift}"
        return reply.having({"Content-Range": f"bytes {moved}/{told}"})


@dataclass(frozen=True)
class Clipped(Fault):
    """206 with the first `most` bytes of the range only, and saying so, as a server may."""

    most: int

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        if reply.status != 206:
            return reply
        first, last, _ = _content_range(reply)
        return reply.instead(part(entity, range(first, min(last + 1, first + self.most))))


def _content_range(reply: Reply) -> tuple[int, int, int]:
    first, last, total = re.findall(r"\d+", reply.headers["Content-Range"])
    return int(first), int(last), int(total)


@dataclass(frozen=True)
class Gzipped(Fault):
    """200 and the whole body, gzipped unasked, under the ETag of the plain bytes."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        packed = memoryview(gzip.compress(entity.content, compresslevel=1))
        zipped = whole(entity).having({"Content-Encoding": "gzip"})
        return reply.instead(replace(zipped, body=packed))


@dataclass(frozen=True)
class OtherContent(Fault):
    """The remote changed: other bytes, with an ETag and a date of their own."""

    content: bytes

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return entity_of(self.content)


@dataclass(frozen=True)
class OtherETag(Fault):
    """The same bytes under another ETag; without one given, under a new one at every request."""

    etag: str = ""

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return replace(entity, etag=self.etag or f'"request-{asked.number}"')


@dataclass(frozen=True)
class NoValidators(Fault):
    """Neither ETag nor Last-Modified, so that nothing ties two attempts together."""

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return replace(entity, etag="", modified="")


@dataclass(frozen=True)
class Flip(Fault):
    """Wrong bytes of the right size: one bit at offset `at` is turned; the ETag stays."""

    at: int = 0

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        wrong = bytearray(entity.content)
        wrong[self.at] ^= 1
        return replace(entity, content=bytes(wrong))


@dataclass(frozen=True)
class Short(Fault):
    """The content lacks its last `by` bytes, and every header agrees; the ETag stays."""

    by: int = 1

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return replace(entity, content=entity.content[: -self.by])


@dataclass(frozen=True)
class Long(Fault):
    """The content has `by` bytes too many, and every header agrees; the ETag stays."""

    by: int = 1

    def on_entity(self, asked: Asked, entity: Entity) -> Entity:
        return replace(entity, content=entity.content + bytes(self.by))


@dataclass(frozen=True)
class Refuse(Fault):
    """Another status, and a page of HTML; `retry_after` is seconds or an `http_date`."""

    status: int
    retry_after: str = ""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.instead(page(self.status).having({"Retry-After": self.retry_after}))


@dataclass(frozen=True)
class LoginPage(Fault):
    """200, and a page that asks to log in."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.instead(page(200, LOGIN))


@dataclass(frozen=True)
class Redirect(Fault):
    """On to another URL or path, of any scheme; to its own path it is a loop."""

    to: str
    status: int = 302

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.instead(page(self.status).having({"Location": self.to}))


@dataclass(frozen=True)
class Onward(Fault):
    """On to a URL that was never asked for before, at each request anew; struck with `"*"`."""

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        return reply.instead(page(302).having({"Location": f"{asked.path}x"}))


@dataclass(frozen=True)
class RequireAuth(Fault):
    """401 to each request whose Authorization header is not exactly this."""

    authorization: str

    def on_reply(self, asked: Asked, entity: Entity, reply: Reply) -> Reply:
        if asked.headers.get("authorization") == self.authorization:
            return reply
        return reply.instead(page(401).having({"WWW-Authenticate": 'Basic realm="origin"'}))
