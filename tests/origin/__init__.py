"""A simulated origin: an HTTP/1.1 server with the faults a downloader meets, and a log of requests.

It has three modules:

1. `answers`, pure values: `Asked` and `Entity` make a `Reply`, which says all that goes out;
2. `faults`, each a frozen value that spoils the entity or the reply: `Drop(after=1000)`, ...;
3. `server`: a thread for each connection puts replies on the wire and counts what it sent.

It knows nothing of dscache: a test meets it only over a socket.

    with origin({"/a.bin": data}) as site:
        site.fault("/a.bin", Drop(after=1000), times=1)
        ...                                     # the code under test fetches site.url("/a.bin")
        assert site.sent("/a.bin") == 1000 + len(data)

A request passes through the faults of its path in the order in which they were added. So they
compose: `site.fault("/a.bin", Chunked(), Drop(after=10, how=Ending.RST))` resets a chunked body.
"""

from __future__ import annotations

from tests.origin.answers import (
    BEFORE_ANSWER,
    Asked,
    Ending,
    Entity,
    Reply,
    entity_of,
    http_date,
    part,
)
from tests.origin.faults import (
    LOGIN,
    Chunked,
    Clipped,
    CloseDelimited,
    Drip,
    Drop,
    Endless,
    EndlessHeaders,
    Fault,
    Flip,
    Gzipped,
    HangUp,
    IgnoreRange,
    Late,
    LoginPage,
    Long,
    NoValidators,
    Onward,
    OtherContent,
    OtherETag,
    Overrun,
    Redirect,
    Refuse,
    RequireAuth,
    Short,
    Stall,
    Unsteady,
    WrongRange,
)
from tests.origin.server import (
    Site,
    most_at_once,
    origin,
)

__all__ = [
    "BEFORE_ANSWER",
    "LOGIN",
    "Asked",
    "Chunked",
    "Clipped",
    "CloseDelimited",
    "Drip",
    "Drop",
    "Ending",
    "Endless",
    "EndlessHeaders",
    "Entity",
    "Fault",
    "Flip",
    "Gzipped",
    "HangUp",
    "IgnoreRange",
    "Late",
    "LoginPage",
    "Long",
    "NoValidators",
    "Onward",
    "OtherContent",
    "OtherETag",
    "Overrun",
    "Redirect",
    "Refuse",
    "Reply",
    "RequireAuth",
    "Short",
    "Site",
    "Stall",
    "Unsteady",
    "WrongRange",
    "entity_of",
    "http_date",
    "most_at_once",
    "origin",
    "part",
]
